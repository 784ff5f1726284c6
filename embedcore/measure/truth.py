"""What scoring needs of a dataset, without its images: small enough to send to a measuring process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedcore.images.dataset import Dataset, LabelsBySide


@dataclass(frozen=True, eq=False)
class GroundTruth(LabelsBySide):
    """Labels and roles of n images, and what tells their content apart from another one."""

    fingerprint: str
    """Of the dataset."""
    decoder: str
    """What turns the images' content into pixels, with its version."""
    labels: NDArray[np.int64]
    """[n]"""
    is_query: NDArray[np.bool_]
    """[n]"""
    is_reference: NDArray[np.bool_]
    """[n]"""
    leave_one_out: bool

    @classmethod
    def of(cls, dataset: Dataset | GroundTruth) -> GroundTruth:
        """Return the ground truth of a dataset; ground truth itself is returned as it is."""
        if isinstance(dataset, GroundTruth):
            return dataset
        return cls(
            dataset.fingerprint,
            dataset.images.decoder,
            dataset.labels,
            dataset.is_query,
            dataset.is_reference,
            dataset.leave_one_out,
        )

    def __len__(self) -> int:
        return len(self.labels)
