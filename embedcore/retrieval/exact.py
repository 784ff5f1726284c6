"""Exact ranking by float64 similarities.

Products of float32 numbers are exact in float64; only their sum is rounded. :func:`similarities` sums each pair in the
same order, so equal rows have equal similarities, and q·r = r·q, to the last bit. Other float64 sums, such as a matrix
product or a sum on a GPU, do not guarantee that: pairs that they cannot distinguish within their error bound are
computed again by :func:`similarities` (see :func:`settled`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.operands import accumulation
from embedcore.retrieval.tiles import DoubleArray, FloatArray, Found, IntArray, position_in_runs, unfilled

if TYPE_CHECKING:
    import torch

_CACHED = 2**17  # float64 numbers that fit into a core's L2 cache
_DENSE = 2**22  # float64 numbers in a block of a dense search
_PAIRS = 4096  # near-ties computed at once
_TILE = 2048


def similarities(queries: FloatArray, references: FloatArray, ids: npt.NDArray[np.integer]) -> DoubleArray:
    """Return float64 dot products of each query [n, d] with the references [m, d] in its row of ``ids`` [n, c]."""
    rows, columns = ids.shape
    dim = queries.shape[1]
    width = max(1, min(columns, _CACHED // dim))
    height = max(1, _CACHED // (dim * width))
    result = np.empty((rows, columns), dtype=np.float64)
    for top in range(0, rows, height):
        query = queries[top : top + height].astype(np.float64)[:, None, :]
        for start in range(0, columns, width):
            wanted = ids[top : top + height, start : start + width]
            products = references[wanted.reshape(-1)].astype(np.float64).reshape(*wanted.shape, dim)
            products *= query
            # NumPy sums pairwise along the last, contiguous axis: the order depends on d alone.
            np.add.reduce(products, axis=2, out=result[top : top + height, start : start + width])
    return result


def pair_similarities(
    queries: FloatArray,
    references: FloatArray,
    rows: IntArray,
    ids: npt.NDArray[np.integer],
    pool: Executor | None = None,
) -> DoubleArray:
    """Return the :func:`similarities` of the pairs of ``queries[rows]`` and ``references[ids]``, [pairs]."""
    result = np.empty(len(rows), dtype=np.float64)

    def work(start: int) -> None:
        part = slice(start, start + _PAIRS)
        result[part] = similarities(queries[rows[part]], references, ids[part, None])[:, 0]

    _each(work, range(0, len(rows), _PAIRS), pool)
    return result


def best_of_candidates(
    queries: FloatArray,
    references: FloatArray,
    ids: npt.NDArray[np.integer],
    count: IntArray,
    k: int,
    pool: Executor | None = None,
) -> Found:
    """Return the ``k`` nearest of the first ``count[i]`` ids of each row, by (similarity descending, id ascending).

    If ``count[i]`` is below k, the rest of the row has similarity minus infinity.
    """
    indices, values = unfilled(len(queries), k)

    def work(start: int) -> None:
        rows = slice(start, min(start + 64, len(queries)))
        held = count[rows, None]
        width = max(k, int(held.max()))
        absent = np.arange(width) >= held
        block = np.sort(np.where(absent, np.iinfo(np.int64).max, ids[rows, :width]), axis=1)
        block[absent] = 0
        exact = similarities(queries[rows], references, block)
        exact[absent] = -np.inf
        indices[rows], values[rows] = first(block, exact, k)

    _each(work, range(0, len(queries), 64), pool)
    return indices, values


def dense_nearest(queries: FloatArray, references: FloatArray, k: int, pool: Executor | None = None) -> Found:
    """Return the ``k`` nearest of each query by float64 products with all references, in blocks of rows."""
    import torch

    indices, values = unfilled(len(queries), k)
    height = max(1, min(512, _DENSE // len(references)))
    held = torch.from_numpy(references)

    def work(start: int) -> None:
        rows = slice(start, min(start + height, len(queries)))
        indices[rows], values[rows] = dense_block(queries[rows], references, held, k)

    _each(work, range(0, len(queries), height), pool)
    return indices, values


def dense_block(
    queries: FloatArray, references: FloatArray, held: torch.Tensor, k: int, pool: Executor | None = None
) -> Found:
    """Return ``dense_nearest`` in one block on the device of ``held``, a copy of the references."""
    import torch

    wide = torch.from_numpy(queries).to(held.device).double()
    products = wide.new_empty((len(queries), len(held)))
    for start in range(0, len(held), _TILE):
        torch.mm(wide, held[start : start + _TILE].double().T, out=products[:, start : start + _TILE])
    kth = products.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    places = (products >= kth - _apart(references.shape[1])).nonzero(as_tuple=True)
    found = products[places].cpu().numpy()
    row, column = (place.cpu().numpy() for place in places)
    count = np.bincount(row, minlength=len(queries))
    slot = position_in_runs(count)
    ids = np.zeros((len(queries), int(count.max())), dtype=np.int64)
    values = np.full(ids.shape, -np.inf)
    ids[row, slot], values[row, slot] = column, found
    return settled(ids, values, queries, references, k, pool)


def settled(
    ids: IntArray,
    values: DoubleArray,
    queries: FloatArray,
    references: FloatArray,
    k: int,
    pool: Executor | None = None,
) -> Found:
    """Return the first ``k`` of the references ``ids`` [n, c] with float64 products ``values`` summed in any order.

    Adjacent values within the error of such sums are replaced by :func:`similarities`.
    """
    order = np.argsort(-values, axis=1, kind="stable")
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    close = np.zeros(values.shape, dtype=bool)
    with np.errstate(invalid="ignore"):  # infinity minus infinity in short rows
        near = values[:, :-1] - values[:, 1:] <= _apart(references.shape[1])
    close[:, :-1] |= near
    close[:, 1:] |= near
    if not close.any():
        return ids[:, :k], values[:, :k]
    at = np.nonzero(close)
    values[at] = pair_similarities(queries, references, at[0], ids[at], pool)
    by_id = np.argsort(ids, axis=1, kind="stable")
    return first(np.take_along_axis(ids, by_id, axis=1), np.take_along_axis(values, by_id, axis=1), k)


def _apart(dim: int) -> float:
    """Return the difference above which float64 products are in the order of their pairs' similarities.

    It is the error bound of two products and of two similarities; norms are 1 within a thousandth.
    """
    return 4.01 * accumulation(dim, 2.0**-53)


def first(ids: npt.NDArray[np.integer], values: DoubleArray, k: int) -> Found:
    """Return the first ``k`` by descending value; equal values keep their order, by ascending id."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, axis=1).astype(np.int64), np.take_along_axis(values, order, axis=1)


def _each(work: Callable[[int], None], starts: Iterable[int], pool: Executor | None) -> None:
    for _ in (map if pool is None else pool.map)(work, starts):
        pass
