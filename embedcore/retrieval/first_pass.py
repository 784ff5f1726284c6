"""First pass of the search: candidates for the k nearest from tiles of approximate products.

Each tile is multiplied, compared with the current cuts of its rows, and discarded: memory is bounded by the tiles in
flight and the candidate lists. Leave-one-out multiplies only tiles on and above the diagonal; since q·r = r·q, each
serves its rows and its columns.
"""

from __future__ import annotations

import numpy as np

from embedcore.retrieval import tiles
from embedcore.retrieval.candidates import CandidateBlock, capacity
from embedcore.retrieval.exact import best_of_candidates, dense_nearest
from embedcore.retrieval.operands import Precision, bf16_pays, centre_of, margin, prepare
from embedcore.retrieval.threads import Scratch, Workers
from embedcore.retrieval.tiles import DoubleArray, FloatArray, Found, IntArray, unfilled

Partial = tuple[IntArray, DoubleArray, IntArray]  # as Found, and the rows with too many candidates

_PILOT = 32
_LISTS_BYTES = 300 * 2**20  # largest candidate lists of all rows at once


def choose_precision(queries: FloatArray, references: FloatArray, k: int) -> Precision | None:
    """Return the fastest precision whose margin leaves short candidate lists for a few queries; None if none does.

    If similarities are closer together than the margin, every reference would be a candidate.
    """
    import torch

    rng = np.random.default_rng(0)
    pilot = queries[np.sort(rng.choice(len(queries), min(_PILOT, len(queries)), replace=False))]
    centre = centre_of(references)
    products: FloatArray = torch.mm(torch.from_numpy(pilot), torch.from_numpy(references).T).numpy()
    products -= centre @ centre
    kth = np.partition(products, len(references) - k, axis=1)[:, len(references) - k]
    precisions: tuple[Precision, ...] = ("bf16", "f32") if bf16_pays() else ("f32",)
    for precision in precisions:
        bound = margin(prepare(pilot, centre, precision), prepare(references[:1024], centre, precision))
        lengths = np.count_nonzero(products >= bound.cut(kth)[:, None], axis=1)
        if np.mean(lengths > 0.75 * capacity(k)) <= 0.1:
            return precision
    return None


def search_tiles(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    precision: Precision,
    tile: int,
    pool: Workers,
    symmetric: bool = False,
    least: DoubleArray | None = None,
) -> Found:
    """Return the ``k`` nearest references of each query. symmetric: both sides are one set, in order.

    Rows with too many candidates are searched again with more precise products. With ``least`` [n], references that are
    less similar than that may be missing; the rest of the row then has similarity minus infinity.
    """
    if symmetric and len(queries) * capacity(k) * 8 <= _LISTS_BYTES:
        indices, similarities, overfull = _symmetric(references, k, precision, tile, pool)
    else:
        indices, similarities, overfull = _pairs(queries, references, k, precision, tile, pool, least)
    if len(overfull):
        if precision == "bf16":
            of_these = None if least is None else least[overfull]
            found = search_tiles(queries[overfull], references, k, "f32", tile, pool, least=of_these)
        else:
            found = dense_nearest(queries[overfull], references, k, pool)
        indices[overfull], similarities[overfull] = found
    return indices, similarities


def _symmetric(rows: FloatArray, k: int, precision: Precision, tile: int, pool: Workers) -> Partial:
    """Search a set in itself: each pair of rows is multiplied once."""
    n = len(rows)
    order = _shuffled(n)
    left = prepare(rows, centre_of(rows), precision, order, pool)
    right = left.as_right()
    tops = range(0, n, tile)
    bound = margin(left, right)
    blocks = [CandidateBlock(min(tile, n - top), k, bound) for top in tops]
    scratch = Scratch(tile * tile, left.matrix.dtype)

    def work(job: tuple[int, int]) -> None:
        i, j = job
        a, b = tops[i], tops[j]
        raw = tiles.multiply(left.matrix[a : a + tile], right.matrix[b : b + tile], scratch.tensor)
        if i == j:
            blocks[i].raise_cut(tiles.kth_best_bound(raw, k))
        row, column, values = tiles.above(raw, blocks[i].cut, blocks[j].cut)
        of_row, of_column = values >= blocks[i].cut[row], values >= blocks[j].cut[column]
        blocks[i].add(row[of_row], column[of_row] + b, values[of_row])
        if i != j:
            blocks[j].add(column[of_column], row[of_column] + a, values[of_column])

    count = len(blocks)
    list(pool.map(work, [(i, i) for i in range(count)]))  # first, to raise the cuts
    # By distance from the diagonal, so that all rows progress evenly.
    list(pool.map(work, [(i, i + step) for step in range(1, count) for i in range(count - step)]))

    indices, similarities = unfilled(n, k)
    for block, top in zip(blocks, tops, strict=True):
        original = order[top : top + tile]
        ids, held = block.finish()
        indices[original], similarities[original] = best_of_candidates(rows[original], rows, order[ids], held, k, pool)
    return indices, similarities, order[np.concatenate([block.overfull for block in blocks])]


def _pairs(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    precision: Precision,
    tile: int,
    pool: Workers,
    least: DoubleArray | None,
) -> Partial:
    """Search by products of all queries with all references."""
    n = len(queries)
    order = _shuffled(len(references))
    centre = centre_of(references)
    left = prepare(queries, centre, precision, pool=pool)
    right = prepare(references, centre, precision, order, pool).as_right()
    bound = margin(left, right)
    cuts = None if least is None else bound.around(least)[0]
    indices, similarities = unfilled(n, k)
    scratch = Scratch(tile * tile, right.matrix.dtype)

    height = height_of(n, tile, pool)

    def work(top: int) -> IntArray:
        mine = slice(top, min(top + height, n))
        block = CandidateBlock(mine.stop - top, k, bound)
        if cuts is not None:
            block.cut[:] = cuts[mine]
        for start in range(0, len(references), tile):
            raw = tiles.multiply(left.matrix[mine], right.matrix[start : start + tile], scratch.tensor)
            if start == 0 and cuts is None:
                block.raise_cut(tiles.kth_best_bound(raw, k))
            row, column, values = tiles.above(raw, block.cut)
            block.add(row, column + start, values)
        ids, held = block.finish()
        indices[mine], similarities[mine] = best_of_candidates(queries[mine], references, order[ids], held, k)
        return top + np.flatnonzero(block.overfull)

    return indices, similarities, np.concatenate(list(pool.map(work, range(0, n, height))))


def height_of(rows: int, tile: int, pool: Workers) -> int:
    """Return the height of parts of ``rows``, at most ``tile``: equal ones, the same number for each worker."""
    rounds = -(-rows // (tile * pool.count))
    return -(-rows // (rounds * pool.count))


def _shuffled(n: int) -> IntArray:
    """Return a fixed random order: the first tile is a fair sample, and neighbours are spread over tiles."""
    return np.random.default_rng(0).permutation(n)
