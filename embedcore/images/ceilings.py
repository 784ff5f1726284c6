"""Scores that follow from the labels alone: of a perfect and of a random embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def reference_counts(query_labels: NDArray[np.int64], reference_labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return R of each query, its number of references of the same class: int64 [n_queries].

    ``reference_labels`` None means leave-one-out: the queries are the references, and a query does not count itself.
    """
    counted = query_labels if reference_labels is None else reference_labels
    classes, counts = np.unique(counted, return_counts=True)
    place = np.searchsorted(classes, query_labels).clip(max=max(len(classes) - 1, 0))
    found = np.where(classes[place] == query_labels, counts[place], 0) if len(classes) else np.zeros(len(query_labels))
    return found.astype(np.int64) - (reference_labels is None)


def acc5_ceiling(query_labels: NDArray[np.int64], reference_labels: NDArray[np.int64] | None) -> float:
    """Return the acc5 of a perfect embedding: the mean of min(5, R) / 5 over the queries that have a reference."""
    counts = reference_counts(query_labels, reference_labels)
    scored = counts[counts > 0]
    return float(np.minimum(scored, 5).mean() / 5) if len(scored) else 0.0


def chance_acc(query_labels: NDArray[np.int64], reference_labels: NDArray[np.int64] | None) -> float:
    """Return the expected acc of a random nearest reference, over the queries that have a reference."""
    counts = reference_counts(query_labels, reference_labels)
    scored = counts[counts > 0]
    available = len(query_labels) - 1 if reference_labels is None else len(reference_labels)
    return float(scored.mean() / available) if len(scored) else 0.0
