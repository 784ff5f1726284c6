"""The five nearest references of each query, kept so that a report can show what a model retrieves.

A measuring process writes them to ``neighbours/RUN.KEY.npz`` in the cache folder. The key is a hash of the result, so a
saved run finds the neighbours of exactly the embeddings that it scored. Files of models that no report would show are
removed during the run.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedcore.files import written_whole
from embedcore.results.leaderboard import by_headline
from embedcore.results.result import Result
from embedcore.results.verdicts import NEAREST

FOLDER = "neighbours"
"""Folder in the cache folder."""
BEST = 20
"""Number of best models whose neighbours are kept, besides the leader of each family."""
SPARE = 200
"""During a run, files are removed only if there are more than this."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptNeighbours:
    """The nearest references of each query, best first.

    indices: uint32 [n_queries, k], k at most 5, as in `embedcore.retrieval.search.Neighbours`.
    similarities: float16 [n_queries, k], for display only.
    """

    indices: NDArray[np.uint32]
    similarities: NDArray[np.float16]

    @classmethod
    def make(cls, indices: ArrayLike, similarities: ArrayLike) -> KeptNeighbours:
        """Convert integers and floats [n_queries, k], at most the first five columns. Raises ValueError."""
        ids, values = np.asarray(indices), np.asarray(similarities)
        if ids.ndim != 2 or ids.shape != values.shape or ids.dtype.kind not in "iu" or values.dtype.kind != "f":
            found = f"{ids.dtype} {ids.shape} and {values.dtype} {values.shape}"
            raise ValueError(f"neighbours must be integers and floats [n_queries, k], not {found}")
        return cls(ids[:, :NEAREST].astype(np.uint32), values[:, :NEAREST].astype(np.float16))


def key_of(model: str, dataset: str | None, verdicts: str | None, sketch: str | None) -> str:
    """Return a hash, 32 hex digits, of the fields of a result that identify its embeddings."""
    return hashlib.sha256("\n".join(map(str, (model, dataset, verdicts, sketch))).encode()).hexdigest()[:32]


def key(result: Result, fingerprint: str) -> str:
    """Return the key of a measured result on the dataset of that fingerprint."""
    return key_of(result.model, fingerprint, result.verdicts, result.sketch)


@dataclass(frozen=True)
class NeighbourStore:
    """The kept neighbours of one run."""

    folder: Path
    run: str

    def path(self, key: str) -> Path:
        return self.folder / f"{self.run}.{key}.npz"

    def keep(self, key: str, found: KeptNeighbours) -> None:
        """Write a model's neighbours. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path(key)) as file:
            np.savez_compressed(file, indices=found.indices, similarities=found.similarities)

    def prune(self, results: Iterable[Result], asked: Collection[str] = (), *, spare: int = 0) -> None:
        """Remove the neighbours of this run's `results` whose models `chosen` leaves out.

        A model that is left out among some results is left out among more, so this can be repeated as results arrive,
        also by several processes that know different ones. Does nothing while there are at most `spare` files, since
        ranking all results after each of them takes quadratic time.
        """
        if sum(1 for _ in self.folder.glob(f"{self.run}.*.npz")) <= spare:
            return
        of_dataset: dict[str | None, list[Result]] = {}
        for result in results:
            if result.ok:
                of_dataset.setdefault(result.dataset, []).append(result)
        for fingerprint, measured in of_dataset.items():
            kept = set(chosen(measured, asked))
            for result in measured:
                if result.model not in kept:
                    self.path(key(result, str(fingerprint))).unlink(missing_ok=True)


def chosen(results: Iterable[Result], asked: Collection[str] = ()) -> list[str]:
    """Return the models that a report shows, best first: the leader of each family, the best 20, those `asked` for."""
    families: set[str] = set()
    models = []
    for place, row in enumerate(by_headline(results)):
        leads = row.result.family not in families
        families.add(row.result.family)
        if leads or place < BEST or row.result.model in asked:
            models.append(row.result.model)
    return models


def find(cache: Path, keys: Mapping[str, str]) -> dict[str, KeptNeighbours]:
    """Return the kept neighbours of these models (model → key), in their order; damaged files are skipped."""
    files = {path.name.split(".")[-2]: path for path in sorted((cache / FOLDER).glob("*.*.npz"))}
    found = {model: _read(files[key]) for model, key in keys.items() if key in files}
    return {model: each for model, each in found.items() if each is not None}


def _read(path: Path) -> KeptNeighbours | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return KeptNeighbours.make(arrays["indices"], arrays["similarities"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("neighbours %s are damaged (%s) and left out of the report", path, error)
        return None


def keys_of(results: Iterable[Result], fingerprint: str) -> dict[str, str]:
    """Return model → key of the `results` with verdicts, in their order."""
    return {result.model: key(result, fingerprint) for result in results if result.ok and result.verdicts}
