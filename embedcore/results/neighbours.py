"""The five nearest references of each query, kept beside the journals so that a report can show what a model retrieves.

A measuring process writes them to a file of its own in the cache folder, ``neighbours/RUN.KEY.npz``; the key is of what
the result says, so that a saved run finds them too, and only those of the very embeddings that it scored. Those of
models that no report would show are removed as the run goes on.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.files import written_whole
from embedcore.results.leaderboard import rank
from embedcore.results.result import Result
from embedcore.results.verdicts import NEAREST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

FOLDER = "neighbours"
"""Within the cache folder."""
BEST = 20
"""Number of models by acc whose neighbours are kept, besides the leader of each family."""
SPARE = 200
"""Files of a run that goes on before those of other models are removed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The nearest references of each query, best first.

    indices: uint32 [n_queries, k], k at most 5, as `embedcore.retrieval.search.Neighbours` has them · similarities:
    float16 [n_queries, k], rounded to that: to tell 0.8 from 0.9, not to compare models by.
    """

    indices: NDArray[np.uint32]
    similarities: NDArray[np.float16]

    @classmethod
    def make(cls, indices: ArrayLike, similarities: ArrayLike) -> Found:
        """Of integers and numbers [n_queries, k]; of more than five columns the first five. Raises ValueError."""
        import numpy as np

        of, at = np.asarray(indices), np.asarray(similarities)
        if of.ndim != 2 or of.shape != at.shape or of.dtype.kind not in "iu" or at.dtype.kind != "f":
            raise ValueError(f"neighbours are two arrays [n_queries, k], not {of.dtype} {of.shape} and {at.shape}")
        return cls(of[:, :NEAREST].astype(np.uint32), at[:, :NEAREST].astype(np.float16))


def key_of(model: str, dataset: str | None, verdicts: str | None, sketch: str | None) -> str:
    """32 hex digits of what a result says of its embeddings: its fields of these names."""
    return hashlib.sha256("\n".join(map(str, (model, dataset, verdicts, sketch))).encode()).hexdigest()[:32]


def key(result: Result, fingerprint: str) -> str:
    """The key of a measured result on the dataset of that fingerprint."""
    return key_of(result.model, fingerprint, result.verdicts, result.sketch)


@dataclass(frozen=True)
class NeighbourStore:
    """Where the neighbours of one run are kept."""

    folder: Path
    run: str

    def path(self, key: str) -> Path:
        return self.folder / f"{self.run}.{key}.npz"

    def keep(self, key: str, found: Found) -> None:
        """Write a model's neighbours. Raises OSError."""
        import numpy as np

        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path(key)) as file:
            np.savez_compressed(file, indices=found.indices, similarities=found.similarities)

    def prune(self, results: Iterable[Result], asked: Collection[str] = (), *, spare: int = 0) -> None:
        """Remove the neighbours of those of this run's `results` that `chosen` leaves out.

        A model that is left out among some of the results is left out among more of them too, so that this can be done
        again and again as they come, also by several processes that know of different ones. Does nothing while at most
        `spare` files are there: ranking all results after each of them would take time that grows with their square.
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
    """The measured models that a report shows, best first: the leader of each family, the best 20 by acc, `asked`."""
    families: set[str] = set()
    models = []
    for place, row in enumerate(rank((result for result in results if result.ok), "acc", "acc5")):
        leads = row.result.family not in families
        families.add(row.result.family)
        if leads or place < BEST or row.result.model in asked:
            models.append(row.result.model)
    return models


def find(cache: Path, keys: Mapping[str, str]) -> dict[str, Found]:
    """What the cache folder has of these models (model → key), in their order; damaged files are passed over."""
    files = {path.name.split(".")[-2]: path for path in sorted((cache / FOLDER).glob("*.*.npz"))}
    found = {model: _read(files[key]) for model, key in keys.items() if key in files}
    return {model: each for model, each in found.items() if each is not None}


def _read(path: Path) -> Found | None:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Found.make(arrays["indices"], arrays["similarities"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("neighbours %s are damaged (%s): left out of the report", path, error)
        return None


def keys_of(results: Iterable[Result], fingerprint: str) -> dict[str, str]:
    """Model → key, of those `results` that have verdicts, in their order."""
    return {result.model: key(result, fingerprint) for result in results if result.ok and result.verdicts}
