"""Stored embeddings after an upgrade: the kept embeddings of two runs, compared model by model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcore.compare.compatibility import TOLERANCES, Compatibility, compatibility
from embedcore.compare.labelled_embeddings import Unavailable, labels_of, rows_of
from embedcore.compare.limits import Limits
from embedcore.compare.pairs import Pair, dataset_pairs, match
from embedcore.embed.kept import FOLDER, KeptEmbeddings
from embedcore.files import writing
from embedcore.results.run import Run


@dataclass(frozen=True)
class StoredEmbeddings:
    """The answer on one model's stored embeddings."""

    model: str
    found: Compatibility | None
    why: str = ""
    """Why there is no answer."""
    file: Path | None = None
    """The matrix, if the advice is to rotate."""

    @property
    def advice(self) -> str:
        """``keep``, ``rotate``, ``re-embed`` or ``unknown``."""
        return "unknown" if self.found is None else self.found.advice


def judge_stored(base: Run, new: Run, cache: Path, limits: Limits, maps: Path) -> list[StoredEmbeddings]:
    """Judge every model that both runs have measured; `cache`: the folder with the embeddings of both.

    The limits of acc and acc5 are the tolerances. The matrix of each model that is to be rotated is written into the
    folder `maps`. Raises UsageError if it cannot be written, and for damaged labels.
    """
    kept = KeptEmbeddings(cache / FOLDER)
    answers = []
    for pair, old, now in _pairs(base, new):
        gate = limits.of(pair.model, pair.new.family)
        tolerances = {metric: gate.get(metric, limit) for metric, limit in TOLERANCES.items()}
        try:
            if old.dataset.get("fingerprint") != now.dataset.get("fingerprint"):
                raise Unavailable("the runs have different images")
            images = labels_of(now)
            before = rows_of(kept, old, pair.base.embeddings, len(images.labels))
            after = rows_of(kept, now, pair.new.embeddings, len(images.labels))
        except Unavailable as reason:
            answers.append(StoredEmbeddings(pair.model, None, str(reason)))
            continue
        found = compatibility(before, after, images, tolerances=tolerances)
        file = None if found.matrix is None else _write(maps, pair, found.matrix)
        answers.append(StoredEmbeddings(pair.model, replace(found, matrix=None), file=file))
    return answers


def _pairs(base: Run, new: Run) -> Iterator[tuple[Pair, Run, Run]]:
    """Yield the models that both runs have measured, with the runs reduced to their dataset."""
    datasets = dataset_pairs(base, new)
    for before, after in datasets:
        old, now = base.on(before), new.on(after)
        name = str((after or {}).get("name")) if len(datasets) > 1 else ""
        for pair in match(old, now).pairs:
            if pair.base.ok and pair.new.ok:
                yield replace(pair, dataset=name), old, now


def _write(folder: Path, pair: Pair, matrix: np.ndarray[Any, np.dtype[np.float32]]) -> Path:
    """Write the matrix and the keys of the embeddings that it connects. Raises UsageError."""
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.+-]+', '_', pair.model)}.npz"
    facts = {"model": pair.model, "from": pair.new.embeddings, "to": pair.base.embeddings}
    with writing(path, make_folder=True) as file:
        np.savez(file, matrix=matrix, facts=np.array(json.dumps(facts)))
    return path
