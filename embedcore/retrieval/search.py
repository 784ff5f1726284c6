"""The k nearest references of every query by cosine similarity, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcore.errors import UsageError
from embedcore.retrieval import duplicates
from embedcore.retrieval.exact import Result, dense_nearest
from embedcore.retrieval.first_pass import choose_precision, search, search_leave_one_out
from embedcore.retrieval.rounding import FloatArray
from embedcore.retrieval.workers import tile_workers

_SMALL = 2**22  # products of a whole search, under which tiles do not pay
_FEW = 512  # neighbours, above which candidate lists do not pay
_NORM_SLACK = 1e-3


@dataclass(frozen=True)
class Neighbours:
    """The nearest references of each query, best first.

    indices: int64 [n_queries, k], rows of the references · similarities: float64 [n_queries, k], cosine in [-1, 1].
    Equal similarities are in the order of their indices.
    """

    indices: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float64]


def nearest(
    queries: npt.ArrayLike,
    references: npt.ArrayLike | None,
    k: int,
    *,
    device: str = "cpu",
    tile: int | None = None,
) -> Neighbours:
    """Find the ``k`` most similar references of every query, by (similarity descending, index ascending).

    The result equals that of comparing all pairs in float64, whatever the device, the tile or the number of threads.
    Beyond its inputs, the call holds a rounded copy of them and candidate lists, never all pairs.

    Args:
        queries: float32 [n_queries, d], rows L2-normalised (a row of zeros is let through).
        references: float32 [n_references, d], likewise; None for leave-one-out: the queries are the references, and
            each is kept, by its index, from finding itself. Its copies elsewhere in the set are found.
        k: how many neighbours; there are fewer columns where fewer references are to be had.
        device: ``cpu``, or a torch device (``cuda``, ``cuda:1``, ``mps``) for the products.
        tile: rows and columns of one product; chosen if None.

    Raises:
        UsageError: not two-dimensional, empty, of different widths, not finite or not L2-normalised; k below 1.

    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> nearest(rows, None, k=1).indices.tolist()
    [[2], [2], [1]]
    """
    left = _checked(queries, "queries")
    right = left if references is None else _checked(references, "references")
    if left.shape[1] != right.shape[1]:
        raise UsageError(
            f"queries have {left.shape[1]} columns and references {right.shape[1]}: "
            "both must come from the same embedding"
        )
    if k < 1:
        raise UsageError(f"k is {k}: ask for at least 1 neighbour")
    if tile is not None and tile < 1:
        raise UsageError(f"tile is {tile}: a tile has at least 1 row")
    alone = references is None
    available = len(right) - 1 if alone else len(right)
    k = min(k, available)
    if k == 0:
        empty = np.empty((len(left), 0))
        return Neighbours(empty.astype(np.int64), empty)
    groups = duplicates.equal_rows(right)
    if groups is None:
        return Neighbours(*_distinct(left, None if alone else right, k, device, tile))
    distinct = right[groups.first]
    if not alone:
        found = _distinct(left, distinct, min(k, len(distinct)), device, tile)
        return Neighbours(*duplicates.expand(groups, found, k))
    others = min(k, len(distinct) - 1)
    if others:
        found = _distinct(distinct, None, others, device, tile)
    else:
        found = np.empty((1, 0), dtype=np.int64), np.empty((1, 0))
    return Neighbours(*duplicates.expand_leave_one_out(groups, found, left, k))


def _distinct(queries: FloatArray, references: FloatArray | None, k: int, device: str, tile: int | None) -> Result:
    """The search proper, among references of which no two are equal."""
    right = queries if references is None else references
    itself = np.arange(len(queries)) if references is None else None
    if device != "cpu":
        from embedcore.retrieval.accelerator import search_on_device

        return search_on_device(queries, right, k, device, tile, exclude=itself)
    if len(queries) * len(right) <= _SMALL and tile is None:
        return dense_nearest(queries, right, k, exclude=itself)
    precision = None
    if k <= _FEW and 8 * k <= len(right):
        precision = choose_precision(queries, right, k)
    with tile_workers() as pool:
        if precision is None:
            return dense_nearest(queries, right, k, exclude=itself, pool=pool)
        if references is None:
            return search_leave_one_out(queries, k, precision, tile or 2048, pool)
        return search(queries, right, k, precision, tile or 2048, pool)


def _checked(rows: npt.ArrayLike, name: str) -> FloatArray:
    array = np.ascontiguousarray(rows, dtype=np.float32)
    if array.ndim != 2:
        raise UsageError(f"{name} have shape {array.shape}: embeddings are two-dimensional, [rows, width]")
    if 0 in array.shape:
        raise UsageError(f"{name} have shape {array.shape}: there is nothing to search")
    squares = np.einsum("ij,ij->i", array, array, dtype=np.float32)
    norms = np.sqrt(squares)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise UsageError(f"{name} hold NaN or infinity, first in row {bad[0]} ({len(bad)} of {len(array)} rows)")
    off = np.flatnonzero((np.abs(norms - 1) > _NORM_SLACK) & (norms != 0))
    if len(off):
        raise UsageError(
            f"{name} are not L2-normalised: row {off[0]} has norm {norms[off[0]]:.4g} "
            f"({len(off)} of {len(array)} rows); divide each row by its norm"
        )
    return array
