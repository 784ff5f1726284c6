"""Ground truth: the labels and roles that scoring needs, small enough to send to a measuring process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedcore.images.dataset import Dataset, LabelsBySide


@dataclass(frozen=True, eq=False)
class GroundTruth(LabelsBySide):
    """Labels and roles of n images, and the identity of their content."""

    fingerprint: str
    """Fingerprint of the dataset."""
    decoder: str
    """Name and version of the decoder of the images."""
    labels: NDArray[np.int64]
    """[n]"""
    is_query: NDArray[np.bool_]
    """[n]"""
    is_reference: NDArray[np.bool_]
    """[n]"""
    leave_one_out: bool
    unlabelled: bool = False
    """Whether the queries are views of the references."""

    @classmethod
    def of(cls, dataset: Dataset) -> GroundTruth:
        """Return the ground truth of a dataset."""
        return cls(
            dataset.fingerprint,
            dataset.images.decoder,
            dataset.labels,
            dataset.is_query,
            dataset.is_reference,
            dataset.leave_one_out,
            dataset.unlabelled,
        )

    def __len__(self) -> int:
        return len(self.labels)
