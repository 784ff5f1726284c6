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
    whole: tuple[int, ...]
    """[K]"""
    first: tuple[float, ...]
    """[K], rounded to four decimals, as the next ones."""
    half: tuple[float, ...]
    sixteenth: tuple[float, ...]
    weights: dict[str, str] = {}
    """Those of `Result.weights`."""
    embeddings: str | None = None
    """Key of the kept embeddings of the images that the stage added."""

    def __post_init__(self) -> None:
        if {len(self.whole), len(self.first), len(self.half), len(self.sixteenth)} != {self.classes}:
            raise ValueError("a stage of the race has another number of classes than its evidence")

    @classmethod
    def of(cls, key: Key, evidence: Evidence, weights: dict[str, str], embeddings: str | None) -> RaceStage:
        """Return the line about a stage."""
        model, dataset, classes = key
        return cls(
            model=model,
            dataset=dataset,
            classes=classes,
            whole=tuple(evidence.whole.astype(int).tolist()),
            first=tuple(evidence.first.round(4).tolist()),
            half=tuple(evidence.half.round(4).tolist()),
            sixteenth=tuple(evidence.sixteenth.round(4).tolist()),
            weights=weights,
            embeddings=embeddings,
        )

    @property
    def key(self) -> Key:
        return self.model, self.dataset, self.classes

    @property
    def evidence(self) -> Evidence:
        """The evidence; a resumed race uses the same as an uninterrupted one, which also goes through these values."""
        values = (np.array(each, np.float64) for each in (self.whole, self.first, self.half, self.sixteenth))
        return Evidence(*values)
