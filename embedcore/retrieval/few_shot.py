"""The few-shot curve: the nearest class mean of a few drawn references of each class."""

from __future__ import annotations

import numpy as np

from embedcore.images.ceilings import reference_counts
from embedcore.retrieval.outcomes import SHOTS, Outcomes
from embedcore.retrieval.tiles import FloatArray, IntArray

DRAWS = 10
"""Number of draws, at most 254."""

MOST = 2**26
"""Comparisons of a query with a class mean, for one number of references; with more, a draw judges fewer queries."""

_BLOCK = 2**23  # similarities at once


def few_shot(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray | None = None,
    reference_labels: IntArray | None = None,
    *,
    seed: int = 0,
    most: int = MOST,
) -> dict[int, Outcomes]:
    """Return the outcomes of classification by k references of each class: k → the draws in which a query was right.

    Each draw puts the references of each class in random order. The first k of a class are averaged, and a query is
    classified by the most similar mean (cosine). A class with fewer references is represented by all of them. Draws of
    more references contain those of fewer. Without references it is leave-one-out: if a query is among the first k of
    its class, the next one takes its place, for this query only.

    Queries whose class has fewer than k (other) references are not judged. A k that fewer than two, or fewer than half,
    of the classes have is left out.

    With more than ``most`` comparisons (queries times classes times draws) a draw judges only every s-th query, in
    turn, so that each query is judged in equally many draws. Beyond ``DRAWS * most`` some queries are not judged.

    Args:
        queries: float32 [n, d], rows L2-normalised.
        labels: class numbers [n].
        references: float32 [m, d], likewise, with reference_labels [m].
        seed: seed of the draws.
        most: maximum number of comparisons for one k.

    >>> rows = np.array([[1, 0], [0.96, 0.28], [0, 1], [0.28, 0.96]], np.float32)
    >>> few_shot(rows, np.array([3, 3, 8, 8]))[1].right.tolist()
    [10, 10, 10, 10]
    """
    alone = references is None or reference_labels is None
    if references is None or reference_labels is None:
        references, reference_labels = queries, labels
    classes, codes = np.unique(reference_labels, return_inverse=True)
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    own = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    available = reference_counts(labels, None if alone else reference_labels)
    curve = _curve(labels, available)
    rng = np.random.default_rng(seed)
    turns = np.lexsort((rng.random(len(labels)), labels))  # every s-th query is a sample of each class
    turns = turns[available[turns] > 0]
    step = _step(len(turns) * len(classes), DRAWS, most)
    right = {k: np.zeros(len(labels), dtype=np.uint8) for k in curve}
    for draw in range(DRAWS if curve else 0):
        order = np.lexsort((rng.random(len(codes)), codes))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order)) - starts[codes[order]]
        asked = turns[draw % step :: step]
        sums = np.zeros((len(classes), queries.shape[1]), dtype=np.float32)
        for k in range(1, curve[-1] + 1):
            more = np.flatnonzero(sizes >= k)
            sums[more] += references[order[starts[more] + k - 1]]
            if k not in curve:
                continue
            rows = asked[available[asked] >= k]
            drawn = np.flatnonzero(place[rows] < k) if alone else rows[:0]
            found = rows[drawn]
            following = references[order[starts[own[found]] + k * alone]]
            guess = _nearest(queries[rows], sums, drawn, own[found], sums[own[found]] - queries[found] + following)
            right[k][rows] += guess == own[rows]
    judged = np.zeros(len(labels), dtype=np.bool_)
    judged[turns[np.arange(len(turns)) % step < DRAWS]] = True
    return {k: Outcomes(right[k], max(1, DRAWS // step), judged & (available >= k)) for k in curve}


def _curve(labels: IntArray, available: IntArray) -> list[int]:
    """Return the numbers of references that at least two, and at least half, of the scored classes have."""
    _, first = np.unique(labels[available > 0], return_index=True)
    of_class = available[available > 0][first]  # equal for all queries of a class
    having = {k: np.count_nonzero(of_class >= k) for k in SHOTS}
    return [k for k, count in having.items() if count >= 2 and 2 * count >= len(of_class)]


def _step(comparisons: int, draws: int, most: int) -> int:
    """Return s: a draw judges every s-th query; a divisor of ``draws`` up to ``draws``.

    >>> _step(100, 10, 1000), _step(100, 10, 400), _step(100, 10, 60)
    (1, 5, 17)
    """
    needed = -(-draws * comparisons // most)
    return next((step for step in range(1, draws + 1) if draws % step == 0 and step >= needed), needed)


def _nearest(rows: FloatArray, sums: FloatArray, places: IntArray, columns: IntArray, instead: FloatArray) -> IntArray:
    """Return the place of the most similar sum [C, d] of each row [n, d]; ties: the smaller place.

    ``rows[places[i]]`` is compared with ``instead[i]`` in place of ``sums[columns[i]]``; places ascending.
    """
    means = _directions(sums)
    similar = np.einsum("ij,ij->i", rows[places], _directions(instead))
    best = np.empty(len(rows), dtype=np.int64)
    height = max(1, _BLOCK // len(means))
    for start in range(0, len(rows), height):
        similarity = rows[start : start + height] @ means.T
        low, high = np.searchsorted(places, [start, start + height])
        similarity[places[low:high] - start, columns[low:high]] = similar[low:high]
        best[start : start + height] = similarity.argmax(axis=1)
    return best


def _directions(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
