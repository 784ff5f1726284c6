"""Number of classes nearer to a query than its own, and accuracy in galleries with fewer and with more classes.

A nearest neighbour is right if no other class has a nearer reference than the query's own class. So the number of
classes ahead of the own class, counted in a random sample of the classes, gives the accuracy in each smaller sample
without bias, and the trend towards larger ones. Zheng, Achanta and Benjamini, "Extrapolating Expected Accuracies for
Large Multi-Class Problems", JMLR 19 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.gallery_growth import none_drawn
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray

_PRODUCTS = 2**24  # similarities in memory at once


@dataclass(frozen=True)
class Ahead:
    """Number of other classes with a nearer reference than the query's own class, int64 [n]; -1 for a query without a
    reference of its class.

    whole: among all classes · before: among the classes with a lower label.
    """

    whole: IntArray
    before: IntArray


def classes_ahead(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray | None = None,
    reference_labels: IntArray | None = None,
) -> Ahead:
    """Count the classes that are nearer to each query than its own; a class as near as the own one is not ahead.

    Args:
        queries: float32 [n, d], rows L2-normalised.
        labels: [n], class numbers from 0.
        references: float32 [m, d], likewise; None for leave-one-out: the queries are the references, and a query does
            not find itself.
        reference_labels: [m].

    >>> rows = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
    >>> classes_ahead(rows, np.array([0, 0, 1, 1])).whole.tolist()
    [0, 1, 1, 0]
    """
    itself = references is None or reference_labels is None
    others = queries if references is None else references
    of_others = labels if reference_labels is None else reference_labels
    by_class = np.argsort(of_others, kind="stable")
    classes, starts = np.unique(of_others[by_class], return_index=True)
    columns = np.ascontiguousarray(others[by_class].T)
    place_of = np.empty(len(others), np.int64)
    place_of[by_class] = np.arange(len(others))
    own = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    whole, before = np.full((2, len(queries)), -1, np.int64)
    height = max(1, _PRODUCTS // len(others))
    for top in range(0, len(queries), height):
        rows = np.arange(top, min(top + height, len(queries)))
        products = queries[rows] @ columns
        if itself:
            products[np.arange(len(rows)), place_of[rows]] = -np.inf
        best = np.maximum.reduceat(products, starts, axis=1)
        best_own = best[np.arange(len(rows)), own[rows]]
        best_own[classes[own[rows]] != labels[rows]] = -np.inf
        nearer = best > best_own[:, None]
        known = np.isfinite(best_own)
        whole[rows[known]] = nearer.sum(axis=1)[known]
        before[rows[known]] = (nearer & (classes < labels[rows, None])).sum(axis=1)[known]
    return Ahead(whole, before)


def right_among(ahead: npt.NDArray[np.integer], classes: npt.ArrayLike, kept: npt.ArrayLike) -> DoubleArray:
    """Return the probability that each query is right if only ``kept`` of the ``classes`` stay in the gallery.

    With r classes ahead of the own one, which stays, a random choice of ``kept`` - 1 others avoids all r with
    probability C(classes - 1 - r, kept - 1) / C(classes - 1, kept - 1). Queries without a reference (-1) have 0.

    Args:
        ahead: [n].
        classes: of the gallery in which they were counted, one number or [n].
        kept: 1 to ``classes``, one number or [n].

    >>> right_among(np.array([0, 1, 2, -1]), classes=5, kept=3).round(3).tolist()
    [1.0, 0.5, 0.167, 0.0]
    """
    known = none_drawn(np.maximum(ahead, 0), np.asarray(classes) - 1, np.asarray(kept) - 1)
    return np.where(ahead >= 0, known, 0.0)
