"""Search and counting among any number of references, read once in blocks. Memory is bounded by a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcore.embed.embedding_blocks import read_blocks
from embedcore.errors import UsageError, whole_number
from embedcore.retrieval.exact import first, pair_similarities
from embedcore.retrieval.first_pass import height_of
from embedcore.retrieval.inputs import unit_rows
from embedcore.retrieval.operands import Precision, bf16_pays, centre_of, margin, prepare
from embedcore.retrieval.search import Neighbours, find_neighbours
from embedcore.retrieval.threads import Scratch, Workers, tile_workers
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray, above, multiply, unfilled

_NUMBERS = 2**24  # of a block
_FEWEST = 4096  # rows of a block, however wide they are
_TILE = 2048
_PILOT = 32
_NEAR = 1e-3  # share of pairs whose exact similarities cost as much as bfloat16 products save


def nearest_streamed(
    queries: npt.ArrayLike, blocks: Any, k: int = 5, *, normalize: bool = False, device: str = "cpu"
) -> Neighbours:
    """Find the ``k`` most similar references of each query, as `nearest` does, among references that are read once.

    The result is that of `nearest` on all references together. Memory: two blocks of 64 MB with a rounded copy, and the
    queries and neighbours.

    Args:
        queries: [n_queries, d], rows L2-normalised: an array or a tensor.
        blocks: the references: an array [n, d], such as a memory-mapped one; a ``.npy`` file, or a ``.parquet``,
            ``.arrow`` or ``.feather`` file with one column of lists of floats (extra ``arrow``); a folder of such
            files, in the order of their names; or an iterable of arrays [b, d].
        k: number of neighbours; fewer columns for fewer references.
        normalize: divide each row by its norm first.
        device: ``cpu``, ``auto``, or a torch device for the products.

    Raises:
        UsageError: as `nearest`; also for files that cannot be read, and without references.

    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> nearest_streamed(rows[:1], iter([rows[1:2], rows[2:]]), k=1).indices.tolist()
    [[1]]
    """
    rows = unit_rows(queries, "queries", normalize=normalize)
    k = whole_number(k, "k", 1)
    ids, values = unfilled(len(rows), 0)
    for start, block in _unit_blocks(blocks, rows.shape[1], normalize):
        least = values[:, -1] if values.shape[1] == k else None
        found = find_neighbours(rows, block, k, device, least=least)
        near, similarity = found.indices, found.similarities
        # Sums in one order, so that copies in two blocks are equally similar.
        at = np.nonzero(np.isfinite(similarity))
        similarity[at] = pair_similarities(rows, block, at[0], near[at])
        ids, values = first(np.hstack([ids, near + start]), np.hstack([values, similarity]), k)
    if not values.shape[1]:
        raise UsageError("there are no references: all blocks are empty")
    return Neighbours(ids, values)


def beaten_by(
    queries: npt.ArrayLike, best_positive: npt.ArrayLike, blocks: Any, *, normalize: bool = False
) -> IntArray:
    """Count the references of ``blocks`` that are more similar to each query than ``best_positive``: int64 [n_queries].

    Similarities are compared in float64, as `embedcore.retrieval.exact.similarities` computes them; a reference that is
    as similar does not count.

    Args:
        queries: [n_queries, d], rows L2-normalised: an array or a tensor.
        best_positive: float64 [n_queries], such as those of `embedcore.retrieval.gallery_growth.best_positives`.
        blocks, normalize: as in `nearest_streamed`; there may be no references.

    Raises:
        UsageError: as `nearest_streamed`; also for ``best_positive`` of another shape.

    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> beaten_by(rows[:2], [0.5, 0.9], rows).tolist()
    [2, 1]
    """
    rows = unit_rows(queries, "queries", normalize=normalize)
    limits = np.asarray(best_positive, dtype=np.float64)
    if limits.shape != (len(rows),):
        raise UsageError(f"best_positive has shape {limits.shape}: each of the {len(rows)} queries needs one")
    beats = np.zeros(len(rows), dtype=np.int64)
    with tile_workers() as pool:
        for _, block in _unit_blocks(blocks, rows.shape[1], normalize):
            beats += _beaten_in(rows, limits, block, _precision(rows, limits, block), pool)
    return beats


def _beaten_in(
    queries: FloatArray, limits: DoubleArray, block: FloatArray, precision: Precision, pool: Workers
) -> IntArray:
    """Return the number of rows of a block that are more similar to each query than its limit, [n]."""
    n, centre = len(queries), centre_of(block)
    left = prepare(queries, centre, precision, pool=pool)
    right = prepare(block, centre, precision, pool=pool).as_right()
    low, high = margin(left, right).around(limits)
    scratch = Scratch(_TILE * _TILE, right.matrix.dtype)
    height = height_of(n, _TILE, pool)
    beats = np.zeros(n, dtype=np.int64)

    def work(top: int) -> None:
        mine = slice(top, min(top + height, n))
        for start in range(0, len(block), _TILE):
            raw = multiply(left.matrix[mine], right.matrix[start : start + _TILE], scratch.tensor)
            row, column, values = above(raw, low[mine])
            row += top
            sure = values > high[row]
            near, ids = row[~sure], column[~sure] + start
            exact = pair_similarities(queries, block, near, ids)
            beating = np.concatenate([row[sure], near[exact > limits[near]]])
            beats[mine] += np.bincount(beating - top, minlength=mine.stop - top)

    list(pool.map(work, range(0, n, height)))
    return beats


def _precision(queries: FloatArray, limits: DoubleArray, block: FloatArray) -> Precision:
    """Return bfloat16 if its products are faster and decide nearly all pairs of a few queries, else float32."""
    import torch

    if not bf16_pays():
        return "f32"
    chosen = np.random.default_rng(0).choice(len(queries), min(_PILOT, len(queries)), replace=False)
    pilot, centre = queries[chosen], centre_of(block)
    bound = margin(prepare(pilot, centre, "bf16"), prepare(block[:1024], centre, "bf16"))
    low, high = bound.around(limits[chosen])
    products = torch.mm(torch.from_numpy(pilot), torch.from_numpy(block).T).numpy() - np.float32(bound.base)
    near = (products >= low[:, None]) & (products <= high[:, None])
    return "bf16" if near.mean() <= _NEAR else "f32"


def _unit_blocks(blocks: Any, width: int, normalize: bool) -> Iterator[tuple[int, FloatArray]]:
    """Yield the first index and the rows, of length 1, of blocks of equal size. Raises UsageError."""
    size = max(_FEWEST, _NUMBERS // width)
    start, held = 0, [np.empty((0, width), dtype=np.float32)]
    for array in read_blocks(blocks, size):
        known = start + sum(map(len, held))
        rows = unit_rows(array, f"references from row {known:,} on", normalize=normalize)
        if rows.shape[1] != width:
            raise UsageError(
                f"queries have {width} columns and references {rows.shape[1]}: both must come from the same embedding"
            )
        room = start + size - known
        held.append(rows[:room])
        if len(rows) >= room:
            yield start, _joined(held)
            start, held = start + size, [rows[room:]]
    if any(map(len, held)):
        yield start, _joined(held)


def _joined(parts: list[FloatArray]) -> FloatArray:
    """Return the parts as one array, without a copy if only one has rows."""
    parts = [part for part in parts if len(part)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
