"""The orthogonal map between two embeddings of the same images."""

from __future__ import annotations

import numpy as np

from embedcore.retrieval.tiles import DoubleArray, FloatArray

_PRIOR = 1e-12  # weight of the identity beside each pair of rows: it decides only where the rows have no component
_BLOCK = 2**24  # float64 numbers converted at once


def orthogonal_map(new: FloatArray, old: FloatArray) -> DoubleArray:
    """Return the orthogonal matrix W, float64 [d, d], for which ``new @ W`` is closest to ``old`` by least squares.

    The orthogonal Procrustes problem (Schoenemann, Psychometrika 31, 1966): W = U V' from the singular value
    decomposition of new' old. Directions in which no row has a component, as with fewer rows than columns, stay as they
    are as far as W can be orthogonal. W keeps the similarities between the rows of ``new``.

    Args:
        new: [n, d], rows L2-normalised.
        old: [n, d], the same images before.

    >>> turned = orthogonal_map(np.array([[0, 1], [-1, 0]], np.float32), np.array([[1, 0], [0, 1]], np.float32))
    >>> turned.round(6).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    rows, dim = new.shape
    products = _PRIOR * rows * np.eye(dim)
    height = max(1, _BLOCK // dim)
    for start in range(0, rows, height):
        block = slice(start, start + height)
        products += new[block].T.astype(np.float64) @ old[block].astype(np.float64)
    left, _, right = np.linalg.svd(products)
    return np.asarray(left @ right, dtype=np.float64)
