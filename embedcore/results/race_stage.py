"""A line of the journal about one model in one stage of the race."""

from __future__ import annotations

import msgspec
import numpy as np

from embedcore.results.result import Count
from embedcore.retrieval.race import Evidence

Key = tuple[str, str, int]
"""Model, fingerprint of the dataset, number of classes drawn."""


class RaceStage(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence on a model after a stage of the race, as JSON values. See `embedcore.retrieval.race.Evidence`."""

    model: str
    dataset: str
    """Fingerprint of the whole dataset."""
    classes: Count
    """Number of classes drawn, K."""
    first: tuple[int, ...]
    """[K], as `whole`."""
    whole: tuple[int, ...]
    fewer: tuple[float, ...]
    """[K], rounded to four decimals."""
    weights: dict[str, str] = {}
    """Those of `Result.weights`."""
    embeddings: str | None = None
    """Key of the kept embeddings of the images that the stage added."""

    def __post_init__(self) -> None:
        if {len(self.first), len(self.whole), len(self.fewer)} != {self.classes}:
            raise ValueError("a stage of the race has another number of classes than its evidence")

    @classmethod
    def of(cls, key: Key, evidence: Evidence, weights: dict[str, str], embeddings: str | None) -> RaceStage:
        """Return the line about a stage."""
        model, dataset, classes = key
        return cls(
            model=model,
            dataset=dataset,
            classes=classes,
            first=tuple(evidence.first.astype(int).tolist()),
            whole=tuple(evidence.whole.astype(int).tolist()),
            fewer=tuple(np.round(evidence.fewer, 4).tolist()),
            weights=weights,
            embeddings=embeddings,
        )

    @property
    def key(self) -> Key:
        return self.model, self.dataset, self.classes

    @property
    def evidence(self) -> Evidence:
        """The evidence; a resumed race uses the same as an uninterrupted one, which also goes through these values."""
        first, whole, fewer = (np.array(each, np.float64) for each in (self.first, self.whole, self.fewer))
        return Evidence(first, whole, fewer)
