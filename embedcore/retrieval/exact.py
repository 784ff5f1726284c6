"""The float64 similarity that decides the order, and searches that use nothing else.

Products of float32 numbers are exact in float64; only their sum rounds. :func:`similarities` sums every pair in the
same order, whatever else is computed beside it, so equal rows have equal similarities, and q·r = r·q, to the last bit.
A float64 matrix product does not promise that, so it only proposes an order; what it cannot tell apart within its
error bound is computed again pair by pair.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.operands import accumulation
from embedcore.retrieval.tiles import FloatArray

IntArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]
Result = tuple[IntArray, DoubleArray]  # indices and similarities, each [rows, k]

_CACHED = 2**17  # float64 numbers that stay in a core's second-level cache
_DENSE = 2**22  # float64 numbers in a block of a dense search
_TILE = 2048


def similarities(queries: FloatArray, references: FloatArray, ids: npt.NDArray[np.integer]) -> DoubleArray:
    """Float64 dot products of each query [n, d] with the references [m, d] named in its row of ``ids`` [n, c]."""
    rows, columns = ids.shape
    dim = queries.shape[1]
    width = max(1, min(columns, _CACHED // dim))
    height = max(1, _CACHED // (dim * width))
    result = np.empty((rows, columns), dtype=np.float64)
    for top in range(0, rows, height):
        query = queries[top : top + height].astype(np.float64)[:, None, :]
        for left in range(0, columns, width):
            wanted = ids[top : top + height, left : left + width]
            products = references[wanted.reshape(-1)].astype(np.float64).reshape(*wanted.shape, dim)
            products *= query
            # NumPy sums along the last, contiguous axis pairwise: the order depends on the width d alone.
            np.add.reduce(products, axis=2, out=result[top : top + height, left : left + width])
    return result


def best_of_candidates(
    queries: FloatArray,
    references: FloatArray,
    ids: npt.NDArray[np.int32],
    count: IntArray,
    k: int,
    pool: Executor | None = None,
) -> Result:
    """The ``k`` nearest among the first ``count[i] >= k`` ids of each row, by (similarity descending, id ascending)."""
    indices = np.empty((len(queries), k), dtype=np.int64)
    values = np.empty((len(queries), k), dtype=np.float64)

    def work(start: int) -> None:
        rows = slice(start, min(start + 64, len(queries)))
        held = count[rows, None]
        width = int(held.max())
        absent = np.arange(width) >= held
        block = np.sort(np.where(absent, np.iinfo(np.int32).max, ids[rows, :width]), axis=1)
        exact = similarities(queries[rows], references, np.where(absent, 0, block))
        exact[absent] = -np.inf
        indices[rows], values[rows] = _first(block, exact, k)

    starts = range(0, len(queries), 64)
    if pool is None:
        for start in starts:
            work(start)
    else:
        list(pool.map(work, starts))
    return indices, values


def dense_nearest(
    queries: FloatArray, references: FloatArray, k: int, exclude: IntArray | None = None, pool: Executor | None = None
) -> Result:
    """The ``k`` nearest of each query by float64 products with all references, some rows at a time.

    exclude: [n], the reference that each query may not find (itself), or None.
    """
    indices = np.empty((len(queries), k), dtype=np.int64)
    values = np.empty((len(queries), k), dtype=np.float64)
    height = max(1, min(512, _DENSE // len(references)))
    norm = float(np.sqrt(max(_largest_square(queries), _largest_square(references)))) * 1.001
    # Between two products: each is off by one bound from the true value, and so is each pair's own similarity.
    apart = 4.0 * accumulation(queries.shape[1], 2.0**-53) * norm * norm + 1e-300

    def work(start: int) -> None:
        rows = slice(start, min(start + height, len(queries)))
        products = _products(queries[rows], references)
        if exclude is not None:
            products[np.arange(len(products)), exclude[rows]] = -np.inf
        indices[rows], values[rows] = _order(products, queries[rows], references, k, apart)

    starts = range(0, len(queries), height)
    if pool is None:
        for start in starts:
            work(start)
    else:
        list(pool.map(work, starts))
    return indices, values


def _products(queries: FloatArray, references: FloatArray) -> DoubleArray:
    wide = queries.astype(np.float64)
    products = np.empty((len(queries), len(references)), dtype=np.float64)
    for left in range(0, len(references), _TILE):
        np.matmul(wide, references[left : left + _TILE].astype(np.float64).T, out=products[:, left : left + _TILE])
    return products


def _order(products: DoubleArray, queries: FloatArray, references: FloatArray, k: int, apart: float) -> Result:
    """The first ``k`` of each row by float64 products, near ties decided pair by pair."""
    columns = products.shape[1]
    kth = np.partition(products, columns - k, axis=1)[:, columns - k]
    reached = products >= kth[:, None] - apart
    reached &= products > -np.inf
    count = reached.sum(axis=1)
    row, column = np.nonzero(reached)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    ids = np.zeros((len(products), int(count.max())), dtype=np.int64)
    values = np.full(ids.shape, -np.inf)
    ids[row, slot] = column
    values[row, slot] = products[row, column]
    order = np.argsort(-values, axis=1, kind="stable")
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    close = np.zeros(values.shape, dtype=bool)
    with np.errstate(invalid="ignore"):  # minus infinity less itself, beyond the end of a short row
        near = values[:, :-1] - values[:, 1:] <= apart
    close[:, :-1] |= near
    close[:, 1:] |= near
    if close.any():
        _settle(values, ids, close, queries, references)
        by_id = np.argsort(ids, axis=1, kind="stable")
        ids, values = np.take_along_axis(ids, by_id, axis=1), np.take_along_axis(values, by_id, axis=1)
        return _first(ids, values, k)
    return ids[:, :k], values[:, :k]


def _settle(
    values: DoubleArray, ids: IntArray, close: npt.NDArray[np.bool_], queries: FloatArray, references: FloatArray
) -> None:
    """Replace the values marked ``close`` by the pairs' own similarities."""
    for row in np.flatnonzero(close.any(axis=1)):
        columns = np.flatnonzero(close[row])
        values[row, columns] = similarities(queries[row : row + 1], references, ids[row, columns][None, :])[0]


def _first(ids: npt.NDArray[np.integer], values: DoubleArray, k: int) -> Result:
    """The first ``k`` by descending value; equal values stay in their order, which is by ascending id."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, axis=1).astype(np.int64), np.take_along_axis(values, order, axis=1)


def _largest_square(rows: FloatArray) -> float:
    return float(np.einsum("ij,ij->i", rows, rows).max())
