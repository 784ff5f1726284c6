"""Stored embeddings on two sides: each side embeds all images of its dataset, for `compare.stored_embeddings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedcore.ab.sides import Side
from embedcore.compare.limits import Limits
from embedcore.compare.stored_embeddings import StoredEmbeddings, judge_stored
from embedcore.results.result import Result
from embedcore.results.run import Run

ONCE = {"rounds": 1}
"""Settings of a measurement that is made for its embeddings."""


def judge_sides(
    sides: Mapping[str, Side],
    models: Sequence[str],
    changes: Callable[[str], Mapping[str, Any]],
    limits: Limits,
    cache: Path,
    maps: Path,
) -> list[StoredEmbeddings]:
    """Return what becomes of the embeddings that side A has stored if side B embeds the queries.

    The sides keep the embeddings in their cache folder `cache`, so that a repeated command does not compute them again.

    Args:
        sides: running sides ``A`` and ``B``.
        models: those of both sides.
        changes: model → settings of the measurement, such as common weights.
        limits, maps: see `judge_stored`.

    Raises UsageError, SideLost.
    """
    runs = {}
    for key, side in sides.items():
        dataset = side.images()
        results = [side.embed(model, **ONCE, **changes(model)) for model in models]
        runs[key] = _run(f"side {key}", results, dataset)
    return judge_stored(runs["A"], runs["B"], cache, limits, maps)


def _run(name: str, results: Sequence[Result], dataset: Mapping[str, Any]) -> Run:
    return Run(
        path=Path(name),
        results=tuple(result for result in results if result.ok),
        excluded=tuple(result for result in results if not result.ok),
        settings={},
        dataset=dataset,
        machine={},
        datetime=None,
    )
