"""The page's details of one model: settings, classes, neighbours in rank, code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from embedcore.plain import one_line
from embedcore.report.board.columns import figure, weights
from embedcore.report.board.recipe import recipe
from embedcore.results.class_table import ClassTable
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.result import Result

_EACH_SIDE = 3
"""Neighbours in rank shown above and below."""


def details(board: Leaderboard, table: ClassTable | None) -> dict[str, Any]:
    """Return ``details`` for each row of `embedcore.report.board.rows.rows`, in their order, and their ``texts``.

    ``scores`` names · ``settings`` places in ``texts`` of name, value, name, value, … · ``rounds`` ms per image ·
    ``best``, ``worst`` [(place of the class in the table, acc, acc5)] · ``neighbours`` [(id, whether the difference is
    significant, or None)] · ``code`` places of its lines in ``texts``
    """
    results = [row.result for row in board.by_acc]
    differ = _significance(board)
    texts: dict[str, int] = {}  # thousands of models share most of their settings and of their code

    def places(found: Iterable[str]) -> list[int]:
        return [texts.setdefault(text, len(texts)) for text in found]

    found = []
    for number, result in enumerate(results):
        near = range(max(0, number - _EACH_SIDE), min(len(results), number + _EACH_SIDE + 1))
        found.append(
            {
                "scores": [*result.scores],
                "settings": places(text for pair in settings(result) for text in pair),
                "rounds": [float(f"{1000 * s / (result.batch_size or 1):.4g}") for s in result.durations],
                "neighbours": [(other, differ(number, other)) for other in near if other != number],
                "code": places(recipe(result).splitlines()),
                **_classes(result, table),
            }
        )
    return {"details": found, "texts": list(texts)}


def settings(result: Result) -> list[tuple[str, str]]:
    """Return (name, value) for each known fact about how a model was measured."""
    size = "×".join(map(str, result.input_size)) if result.input_size else ""
    tokens = ", mean of the tokens" if result.token_mean else ""
    transform = ", ".join(f"{key} {_plain(value)}" for key, value in result.transform.items())
    batch = f"{result.batch_size}{' (smaller than requested, for lack of memory)' if result.batch_decayed else ''}"
    words = [
        ("Architecture", result.architecture),
        ("Tag", result.tag + (" (timm's default)" if result.tag and result.tag == result.default_tag else "")),
        ("Pretraining data", result.pretraining),
        ("Licence", result.licence),
        ("Weights", weights(result) if result.weights else ""),
        ("Classifier", result.weights.get("classifier")),
        ("Resampled tensors", result.weights.get("resampled")),
        ("URL of the weights", result.weights.get("address")),
        ("Parameters", f"{figure(result.params_m)} million" if result.params_m is not None else ""),
        ("GMACs per image", figure(result.gmacs) if result.gmacs is not None else ""),
        ("Input", size),
        ("Transform", transform),
        ("Embedding", f"{result.dim} dimensions{tokens}" if result.dim else ""),
        ("Point", result.point),
        ("Device", result.device),
        ("Engine", result.engine),
        ("Precision", result.precision),
        ("Batch", batch if result.batch_size else ""),
        ("Memory layout", "" if result.channels_last is None else _LAYOUTS[result.channels_last]),
        ("Compile time", f"{result.compile_s:.1f} s" if result.compile_s is not None else ""),
        ("Warm-up", f"{result.warmup_rounds} rounds" if result.warmup_rounds else ""),
        ("Images/s", ", ".join(f"{_RATES.get(k, k)} {figure(v)}" for k, v in result.images_per_s.items())),
        ("Latency of one image", ", ".join(f"{k} {figure(v)} ms" for k, v in result.latency_ms.items())),
        ("Peak memory", f"{figure(result.peak_memory_mb)} MB" if result.peak_memory_mb is not None else ""),
        ("Total time", f"{result.measured_s:.1f} s" if result.measured_s is not None else ""),
        ("Notes", one_line(result.detail)),
    ]
    return [(what, value) for what, value in words if value]


_LAYOUTS = ("channels-first", "channels-last")
_RATES = {"forward": "forward pass", "end_to_end": "including reading the pixels"}


def _plain(value: Any) -> str:
    return "/".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _classes(result: Result, table: ClassTable | None) -> Mapping[str, list[tuple[int, float, float]]]:
    if table is None or result.model not in table.models:
        return {}
    acc, acc5 = table.acc(result.model), table.acc5(result.model)
    best, worst = table.extremes(result.model)
    return {
        name: [(number, round(float(acc[number]), 4), round(float(acc5[number]), 4)) for number in numbers]
        for name, numbers in (("best", best), ("worst", worst))
    }


def _significance(board: Leaderboard) -> Any:
    """Return a function of two places in `by_acc`: whether they differ significantly, None if unknown."""
    ranking = board.rankings.headline
    if ranking is None:
        return lambda one, other: None
    place = {model: number for number, model in enumerate(ranking.models)}
    at = [place[row.result.model] for row in board.by_acc]
    better = ranking.order.better
    return lambda one, other: bool(better[at[one], at[other]] or better[at[other], at[one]])
