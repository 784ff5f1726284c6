"""Exact search for the k nearest references of each query by cosine similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcore.errors import UsageError, whole_number
from embedcore.plain import counted
from embedcore.retrieval.exact import dense_nearest
from embedcore.retrieval.first_pass import choose_precision, search_tiles
from embedcore.retrieval.inputs import unit_rows
from embedcore.retrieval.row_groups import equal_rows, expand
from embedcore.retrieval.threads import tile_workers
from embedcore.retrieval.tiles import DoubleArray, FloatArray, Found, IntArray, unfilled

_SMALL = 2**22  # products of a search for which tiles are no faster
_FEW = 512  # largest k for which candidate lists are faster
_TILE = 2048


@dataclass(frozen=True)
class Neighbours:
    """The nearest references of each query, best first.

    indices: int64 [n_queries, k], rows of the references · similarities: float64 [n_queries, k], cosine in [-1, 1].
    Ties are in the order of their indices.
    """

    indices: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float64]

    def __repr__(self) -> str:
        queries, k = self.indices.shape
        return f"Neighbours of {counted(queries, 'query', 'queries')}: the nearest {k} references of each"


def nearest(
    queries: npt.ArrayLike,
    references: npt.ArrayLike | None = None,
    k: int = 5,
    *,
    normalize: bool = False,
    device: str = "cpu",
    tile: int | None = None,
) -> Neighbours:
    """Find the ``k`` most similar references of each query, by (similarity descending, index ascending).

    ``nearest(embeddings, k=5)`` is leave-one-out: each row's nearest others. The indices are those of comparing all
    pairs in float64, on any device and with any tile or number of threads; similarities agree to 1e-14. Memory: a
    rounded copy of the inputs and candidate lists, never all pairs.

    Args:
        queries: [n_queries, d], rows L2-normalised: an array or a tensor, see :func:`unit_rows`.
        references: [n_references, d], likewise; None for leave-one-out: the queries are the references, and a query
            does not find itself by index, but does find its copies.
        k: number of neighbours; fewer columns for fewer references.
        normalize: divide each row by its norm first.
        device: ``cpu``, ``auto``, or a torch device (``cuda``, ``cuda:1``, ``mps``) for the products.
        tile: rows and columns of one product; None to choose it.

    Raises:
        UsageError: for embeddings that are not two-dimensional, empty, of different widths, not finite, zero or,
            without normalize, not L2-normalised; k or tile that is not a whole number of at least 1; a missing device.

    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> nearest(rows, k=1).indices.tolist()
    [[2], [2], [1]]
    """
    rows = unit_rows(queries, "queries", normalize=normalize)
    alone = references is None
    others = rows if references is None else unit_rows(references, "references", normalize=normalize)
    k = whole_number(k, "k", 1)
    tile = None if tile is None else whole_number(tile, "tile", 1)
    return find_neighbours(rows, others, k, device, tile, np.arange(len(rows)) if alone else None, symmetric=alone)


def nearest_except(
    queries: npt.ArrayLike, references: npt.ArrayLike, itself: IntArray | None, k: int, *, device: str = "cpu"
) -> Neighbours:
    """Return ``nearest(queries, references, k)`` where query i does not find the reference ``itself[i]``, if given.

    It serves leave-one-out of some rows only, and sides that two models have embedded.
    """
    rows, others = unit_rows(queries, "queries"), unit_rows(references, "references")
    return find_neighbours(rows, others, k, device, None, itself)


def find_neighbours(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    device: str,
    tile: int | None = None,
    itself: IntArray | None = None,
    symmetric: bool = False,
    least: DoubleArray | None = None,
) -> Neighbours:
    """Search distinct references once, and remove queries from their own neighbours.

    itself: [n], index of each query among the references, or None. symmetric: both sides are one set, in order.
    least: [n], or None: a neighbour that is less similar than that may be missing, with similarity minus infinity.
    """
    if queries.shape[1] != references.shape[1]:
        raise UsageError(
            f"queries have {queries.shape[1]} columns and references {references.shape[1]}: "
            "both must come from the same embedding"
        )
    alone = itself is not None
    k = min(k, len(references) - alone)
    if k == 0:
        return Neighbours(*unfilled(len(queries), 0))
    groups = equal_rows(references)
    if groups is not None:
        distinct = references[groups.first]
        sought = distinct if symmetric else queries
        indices, values = _search(sought, distinct, min(k + alone, len(distinct)), device, tile, symmetric, least)
        if symmetric:
            indices, values = indices[groups.of_row], values[groups.of_row]
        return Neighbours(*expand(groups, (indices, values), k, itself))
    indices, values = _search(queries, references, k + alone, device, tile, symmetric, least)
    if itself is not None:
        kept = indices != itself[:, None]
        kept[kept.all(axis=1), -1] = False  # rounding of norms: k others are nearer than the query itself
        indices, values = indices[kept].reshape(-1, k), values[kept].reshape(-1, k)
    return Neighbours(indices, values)


def _search(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    device: str,
    tile: int | None,
    symmetric: bool,
    least: DoubleArray | None,
) -> Found:
    """Search among references that all differ."""
    if device != "cpu":
        from embedcore.embed.device import choose_device
        from embedcore.retrieval.accelerator import search_on_device

        return search_on_device(queries, references, k, str(choose_device(device)), tile)
    if len(queries) * len(references) <= _SMALL and tile is None:
        return dense_nearest(queries, references, k)
    lists_pay = k <= _FEW and 8 * k <= len(references)
    precision = choose_precision(queries, references, k) if lists_pay else None
    with tile_workers() as pool:
        if precision is None:
            return dense_nearest(queries, references, k, pool)
        return search_tiles(queries, references, k, precision, tile or _TILE, pool, symmetric, least)
