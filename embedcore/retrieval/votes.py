"""Two classifiers on frozen embeddings: weighted k-nearest-neighbours, and the nearest class mean."""

from __future__ import annotations

import numpy as np

from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray

TEMPERATURE = 0.07
_CLASSES = 2048  # class means at a time
_QUERIES = 1024  # queries at a time
# Smaller differences of similarity are ties; float64 products of unit vectors have errors of about 1e-15.
_EQUAL = 1e-12


def weighted_vote(labels: IntArray, similarities: DoubleArray) -> IntArray:
    """Return the class [n] with the largest vote among the neighbours' ``labels`` [n, k].

    A neighbour's weight is exp(similarity / 0.07), as in DINO's evaluation (arXiv 2104.14294, section 4.1). Ties go to
    the smaller class. Votes are added in the order of the neighbours.

    >>> weighted_vote(np.array([[2, 1, 1]]), np.array([[0.9, 0.88, 0.88]])).tolist()
    [1]
    """
    weights = np.exp((similarities - similarities.max(axis=1, keepdims=True)) / TEMPERATURE)
    votes = np.zeros(labels.shape)
    for column in range(labels.shape[1]):
        votes += np.where(labels == labels[:, column : column + 1], weights[:, column : column + 1], 0.0)
    leading = votes == votes.max(axis=1, keepdims=True)
    smallest: IntArray = np.where(leading, labels, np.iinfo(np.int64).max).min(axis=1)
    return smallest


def nearest_mean(
    queries: FloatArray, query_labels: IntArray, references: FloatArray | None, reference_labels: IntArray | None
) -> IntArray:
    """Return the class [n] whose L2-normalised mean of references is most similar to each query [n, d].

    Without references it is leave-one-out: the queries are the references, and each is excluded from the mean of its
    class (an empty class is no candidate). Ties go to the smaller class.

    >>> nearest_mean(np.eye(2, dtype=np.float32), np.array([0, 1]), np.eye(2, dtype=np.float32), np.array([4, 3]))
    array([4, 3])
    """
    rows = queries if references is None else references
    labels = query_labels if reference_labels is None else reference_labels
    order = np.argsort(labels, kind="stable")
    classes, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    best = np.full(len(queries), -np.inf)
    chosen = np.full(len(queries), classes[0])
    for start in range(0, len(classes), _CLASSES):
        part = slice(start, min(start + _CLASSES, len(classes)))
        members = [order[s : s + n] for s, n in zip(starts[part], sizes[part], strict=True)]
        sums = np.stack([rows[some].sum(axis=0, dtype=np.float64) for some in members])
        means = _normalised(sums).T
        for top in range(0, len(queries), _QUERIES):
            block = slice(top, min(top + _QUERIES, len(queries)))
            wide = queries[block].astype(np.float64)
            similarity = wide @ means
            if references is None:
                own = np.searchsorted(classes, query_labels[block]) - start
                here = np.flatnonzero((own >= 0) & (own < similarity.shape[1]))
                rest = _normalised(sums[own[here]] - wide[here])
                similarity[here, own[here]] = np.einsum("ij,ij->i", wide[here], rest)
                alone = here[sizes[own[here] + start] == 1]
                similarity[alone, own[alone]] = -np.inf
            top_value = similarity.max(axis=1)
            first = np.argmax(similarity >= top_value[:, None] - _EQUAL, axis=1)
            better = np.flatnonzero(top_value > best[block] + _EQUAL)
            best[top + better] = top_value[better]
            chosen[top + better] = classes[start + first[better]]
    return chosen


def _normalised(rows: DoubleArray) -> DoubleArray:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.where(norms > 0, norms, 1.0)[:, None]
