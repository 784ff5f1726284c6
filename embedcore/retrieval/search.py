"""The k nearest references of every query by cosine similarity, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcore.errors import UsageError
from embedcore.retrieval import duplicates
from embedcore.retrieval.exact import Found, IntArray, dense_nearest
from embedcore.retrieval.first_pass import choose_precision, search_tiles
from embedcore.retrieval.tiles import FloatArray
from embedcore.retrieval.workers import tile_workers

_SMALL = 2**22  # products of a whole search, under which tiles do not pay
_FEW = 512  # neighbours, above which candidate lists do not pay
_NORM_SLACK = 1e-3
_TILE = 2048


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
    references: npt.ArrayLike | None = None,
    k: int = 5,
    *,
    device: str = "cpu",
    tile: int | None = None,
) -> Neighbours:
    """Find the ``k`` most similar references of every query, by (similarity descending, index ascending).

    ``nearest(embeddings, k=5)`` is leave-one-out: each row's nearest others. The indices are those of comparing all
    pairs in float64, whatever the device, the tile or the number of threads; similarities agree to 1e-14. Beyond its
    inputs, the call holds a rounded copy of them and candidate lists, never all pairs.

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
    >>> nearest(rows, k=1).indices.tolist()
    [[2], [2], [1]]
    """
    rows = _checked(queries, "queries")
    alone = references is None
    others = rows if references is None else _checked(references, "references")
    if rows.shape[1] != others.shape[1]:
        raise UsageError(
            f"queries have {rows.shape[1]} columns and references {others.shape[1]}: "
            "both must come from the same embedding"
        )
    if k < 1:
        raise UsageError(f"k is {k}: ask for at least 1 neighbour")
    if tile is not None and tile < 1:
        raise UsageError(f"tile is {tile}: a tile has at least 1 row")
    k = min(k, len(others) - alone)
    if k == 0:
        return _nothing(len(rows))
    groups = duplicates.equal_rows(others)
    if groups is None:
        itself = np.arange(len(rows)) if alone else None
        return Neighbours(*_search(rows, others, k, device, tile, itself, symmetric=alone))
    distinct = others[groups.first]
    if not alone:
        found = _search(rows, distinct, min(k, len(distinct)), device, tile, itself=None)
        return Neighbours(*duplicates.expand(groups, found, k))
    numbers = np.arange(len(distinct))
    if len(distinct) > 1:
        found = _search(distinct, distinct, min(k, len(distinct) - 1), device, tile, numbers, symmetric=True)
    else:
        found = np.empty((1, 0), dtype=np.int64), np.empty((1, 0))
    return Neighbours(*duplicates.expand_leave_one_out(groups, found, rows, k))


def nearest_others(rows: npt.ArrayLike, some: npt.NDArray[np.int64], k: int, *, device: str = "cpu") -> Neighbours:
    """Leave-one-out for ``some`` of the rows only: what ``nearest(rows, None, k)`` gives for them.

    For sets whose neighbours cannot all be held at once. It does not gain from symmetry as the whole search does.

    Args:
        rows: float32 [n, d], L2-normalised.
        some: int64 [m], which rows are queries.
        k: how many neighbours; at most n - 1 columns come back.
        device: see ``nearest``.

    Raises:
        UsageError: as ``nearest``.
    """
    every = _checked(rows, "embeddings")
    k = min(k, len(every) - 1)
    groups = duplicates.equal_rows(every)
    if k == 0:
        return _nothing(len(some))
    if groups is None:
        return Neighbours(*_search(every[some], every, k, device, None, itself=some))
    distinct = every[groups.first]
    # The query's own group is among these: one more than k of them hold k others.
    found = _search(every[some], distinct, min(k + 1, len(distinct)), device, None, itself=None)
    return Neighbours(*duplicates.expand(groups, found, k, leave_out=some))


def _nothing(queries: int) -> Neighbours:
    return Neighbours(np.empty((queries, 0), dtype=np.int64), np.empty((queries, 0)))


def _search(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    device: str,
    tile: int | None,
    itself: IntArray | None,
    symmetric: bool = False,
) -> Found:
    """The search proper, among references of which no two are equal.

    itself: [n], the reference that each query may not find, or None. symmetric: both sides are one set, in order.
    """
    if device != "cpu":
        from embedcore.retrieval.accelerator import search_on_device

        return search_on_device(queries, references, k, device, tile, exclude=itself)
    if len(queries) * len(references) <= _SMALL and tile is None:
        return dense_nearest(queries, references, k, exclude=itself)
    precision = None
    if k <= _FEW and 8 * k <= len(references):
        # A query that is among the references takes a place that it will not have.
        precision = choose_precision(queries, references, k if itself is None else k + 1)
    with tile_workers() as pool:
        if precision is None:
            return dense_nearest(queries, references, k, exclude=itself, pool=pool)
        return search_tiles(queries, references, k, precision, tile or _TILE, pool, itself, symmetric)


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
