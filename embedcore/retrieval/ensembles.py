"""Ensembles of embeddings: concatenations, and a greedy search for the best one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.search import nearest_except
from embedcore.retrieval.tiles import FloatArray, IntArray

MOST = 3
"""Models in the largest ensemble."""


def concatenated(parts: Sequence[FloatArray]) -> FloatArray:
    """Return the concatenation of L2-normalised embeddings [n, d_i], float32 [n, sum d_i], rows of length 1.

    Its inner products are the means of those of the parts, so that all parts have the same weight.

    >>> parts = [np.array([[1, 0]], np.float32), np.array([[0.6, 0.8]], np.float32)]
    >>> concatenated(parts).astype(float).round(3).tolist()
    [[0.707, 0.0, 0.424, 0.566]]
    """
    joined: FloatArray = np.concatenate(parts, axis=1) / np.float32(len(parts) ** 0.5)
    return joined


def nearest_hits(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray,
    reference_labels: IntArray,
    itself: IntArray | None = None,
) -> npt.NDArray[np.bool_]:
    """Return whether the nearest reference of each query [n, d] is of its class, bool [n].

    ``itself`` [n]: the reference that a query must not find, for leave-one-out.
    """
    found = nearest_except(queries, references, itself, 1).indices[:, 0]
    hits: npt.NDArray[np.bool_] = reference_labels[found] == labels
    return hits


def greedy(names: Sequence[str], value: Callable[[tuple[str, ...]], float], most: int = MOST) -> list[tuple[str, ...]]:
    """Return the best single name, then with the best further name, and so on up to `most` names.

    Each step tries every remaining name once. Ties go to the first in the order of `names`.

    >>> greedy("abc", lambda chosen: {"a": 1, "b": 2, "c": 4}[chosen[-1]] - (chosen == ("c", "b")) * 2, 2)
    [('c',), ('c', 'a')]
    """
    found: list[tuple[str, ...]] = []
    chosen: tuple[str, ...] = ()
    while len(chosen) < min(most, len(names)):
        chosen = max(((*chosen, name) for name in names if name not in chosen), key=value)
        found.append(chosen)
    return found
