"""Accuracy in a gallery that grows by references of no class (distractors).

A query that is right without distractors stays right if none of those that are nearer than its best positive is in the
gallery. So their number r gives its expected accuracy with any number m of the N distractors, drawn at random:
C(N - r, m) / C(N, m).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.exact import similarities
from embedcore.retrieval.resampling import summary
from embedcore.retrieval.search import nearest_except
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray

SIZES: Mapping[str, int] = {"10x": 10, "100x": 100}
"""Name of a gallery → its size in multiples of the labelled references."""
ALL = "all"
"""Name of the gallery with all distractors."""


def best_positives(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray | None = None,
    reference_labels: IntArray | None = None,
) -> DoubleArray:
    """Return the similarity of each query's nearest reference of its own class, [n]; infinity if there is none.

    Args:
        queries: float32 [n, d], rows L2-normalised.
        labels: [n], class numbers.
        references: float32 [m, d], likewise; None for leave-one-out: the queries are the references, and a query does
            not find itself.
        reference_labels: [m].
    """
    itself = references is None
    others = queries if references is None else references
    of_others = labels if reference_labels is None else reference_labels
    best = np.full(len(queries), np.inf)
    members = _by_class(of_others)
    for label, rows in _by_class(labels).items():
        own = others[members.get(label, rows[:0])]
        if len(own) > itself:
            near = nearest_except(queries[rows], own, np.arange(len(own)) if itself else None, 1).indices
            best[rows] = similarities(queries[rows], own, near)[:, 0]
    return best


def none_drawn(ahead: npt.ArrayLike, total: npt.ArrayLike, drawn: npt.ArrayLike) -> DoubleArray:
    """Return the probability that ``drawn`` of ``total``, chosen at random, contain none of ``ahead`` given ones.

    C(total - ahead, drawn) / C(total, drawn), by log-gamma functions: for a total of 10^8 the relative error is below
    1e-5. The arguments are whole numbers from 0 and broadcast; ``drawn`` is at most ``total``.

    If two of four are drawn, of which 0, 1, 2 or 4 are given:

    >>> none_drawn([0, 1, 2, 4], total=4, drawn=2).round(3).tolist()
    [1.0, 0.5, 0.167, 0.0]
    """
    from scipy.special import gammaln  # here, since whatever reads a saved run imports this module

    r, n, m = (np.asarray(argument, dtype=np.float64) for argument in (ahead, total, drawn))
    left = n - r - m
    # Each difference is 0 if nothing is ahead.
    logs = gammaln(np.maximum(n - r, 0) + 1) - gammaln(n + 1) + (gammaln(n - m + 1) - gammaln(np.maximum(left, 0) + 1))
    return np.where(left >= 0, np.minimum(np.exp(logs), 1.0), 0.0)


def drawn_for(references: int, distractors: int) -> dict[str, int]:
    """Return the number of distractors in each gallery for which there are enough, and in the one with all.

    >>> drawn_for(references=50, distractors=1000)
    {'10x': 450, 'all': 1000}
    """
    drawn = {name: (times - 1) * references for name, times in SIZES.items()}
    return {name: count for name, count in drawn.items() if count <= distractors} | {ALL: distractors}


def grown_accuracy(
    right: npt.NDArray[np.bool_],
    beaten: IntArray,
    classes: IntArray,
    *,
    references: int,
    distractors: int,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return acc in the galleries of `drawn_for`, and its 95 % intervals over classes (see `resampling.intervals`).

    Args:
        right: [n_scored], whether the nearest reference without distractors has the query's class.
        beaten: [n_scored], number of distractors that are nearer than the query's best positive.
        classes: [n_scored], the class of each query.
        references: number of labelled references.
        distractors: number of all distractors.
        seed: seed of the resamples.

    >>> right, beaten = np.array([True, True, False]), np.array([0, 30, 100])
    >>> grown_accuracy(right, beaten, np.array([0, 1, 1]), references=2, distractors=100)[0]["all"]
    0.3333333333333333
    """
    galleries = drawn_for(references, distractors)
    per_query = {name: right * none_drawn(beaten, distractors, drawn) for name, drawn in galleries.items()}
    values, ci95 = summary(per_query, classes, seed=seed)
    return {name: values[name] for name in galleries}, {name: ci95[name] for name in galleries}


def _by_class(labels: IntArray) -> dict[int, IntArray]:
    """Return the rows of each class, ascending."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True))
