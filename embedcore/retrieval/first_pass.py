"""Candidates for the k nearest, from tiles of rough products.

Every tile is multiplied, compared with the running cut of its rows, and forgotten: memory is bounded by the tiles in
flight and the candidate lists. Leave-one-out multiplies only the tiles on and above the diagonal; since q·r = r·q,
each serves its rows and, read by columns, its columns too.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from embedcore.retrieval.candidates import CandidateBlock, capacity
from embedcore.retrieval.exact import IntArray, Result, best_of_candidates, dense_nearest
from embedcore.retrieval.rounding import (
    FloatArray,
    Operand,
    Precision,
    above,
    bf16_pays,
    decode,
    hide,
    kth_best_bound,
    margin,
    multiply,
    prepare,
)
from embedcore.retrieval.workers import Scratch

_PILOT = 64
_LISTS_BYTES = 300 * 2**20  # candidate lists of all rows at once, at most


def choose_precision(queries: FloatArray, references: FloatArray, k: int) -> Precision | None:
    """The cheapest first pass whose margin leaves short candidate lists, tried on a few queries; None if neither does.

    Where all similarities lie closer together than the margin (a randomly initialised model gives cosines of 0.999
    for everything), the rough pass would name every reference and decide nothing.
    """
    import torch

    rng = np.random.default_rng(0)
    pilot = queries[rng.choice(len(queries), min(_PILOT, len(queries)), replace=False)]
    products = np.empty((len(pilot), len(references)), dtype=np.float32)
    for left in range(0, len(references), 4096):
        part = torch.from_numpy(references[left : left + 4096])
        products[:, left : left + 4096] = torch.mm(torch.from_numpy(pilot), part.T).numpy()
    kth = np.partition(products, len(references) - k, axis=1)[:, len(references) - k]
    precisions: tuple[Precision, ...] = ("bf16", "f32") if bf16_pays() else ("f32",)
    for precision in precisions:
        bound = margin(prepare(pilot, precision), prepare(references[:4096], precision))
        lengths = np.count_nonzero(products >= bound.cut(kth)[:, None], axis=1)
        if np.mean(lengths > 0.75 * capacity(k)) <= 0.1:
            return precision
    return None


def search(
    queries: FloatArray, references: FloatArray, k: int, precision: Precision, tile: int, pool: Executor
) -> Result:
    """The ``k`` nearest references of every query."""
    order = _shuffled(len(references))
    left = prepare(queries, precision)
    right = prepare(references, precision, order)
    return _rectangular(queries, references, left, right, order, k, tile, pool, exclude=None)


def search_leave_one_out(rows: FloatArray, k: int, precision: Precision, tile: int, pool: Executor) -> Result:
    """The ``k`` nearest other rows of every row."""
    order = _shuffled(len(rows))
    operand = prepare(rows, precision, order)
    if len(rows) * capacity(k) * 8 > _LISTS_BYTES:
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        left = prepare(rows, precision)
        return _rectangular(rows, rows, left, operand, order, k, tile, pool, exclude=place)
    return _symmetric(rows, operand, order, k, tile, pool)


def _symmetric(rows: FloatArray, operand: Operand, order: IntArray, k: int, tile: int, pool: Executor) -> Result:
    n = len(rows)
    tops = range(0, n, tile)
    bound = margin(operand, operand)
    blocks = [CandidateBlock(min(tile, n - top), k, bound) for top in tops]
    scratch = Scratch(tile * tile, operand.matrix.dtype)

    def product(i: int, j: int) -> np.ndarray:
        a, b = tops[i], tops[j]
        return multiply(operand.matrix[a : a + tile], operand.matrix[b : b + tile], scratch.get())

    def diagonal(i: int) -> None:
        raw = product(i, i)
        numbers = np.arange(len(raw))
        hide(raw, numbers, numbers)
        blocks[i].raise_cut(kth_best_bound(raw, k))
        hits = above(raw, blocks[i].cut)
        row, column = np.divmod(hits, raw.shape[1])
        blocks[i].add(row, column + tops[i], decode(raw.reshape(-1)[hits]))

    def pair(job: tuple[int, int]) -> None:
        i, j = job
        raw = product(i, j)
        hits = above(raw, blocks[i].cut, blocks[j].cut)
        if len(hits) == 0:
            return
        row, column = np.divmod(hits, raw.shape[1])
        values = decode(raw.reshape(-1)[hits])
        of_row = values >= blocks[i].cut[row]
        blocks[i].add(row[of_row], column[of_row] + tops[j], values[of_row])
        of_column = np.flatnonzero(values >= blocks[j].cut[column])
        of_column = of_column[np.argsort(column[of_column], kind="stable")]
        blocks[j].add(column[of_column], row[of_column] + tops[i], values[of_column])

    count = len(blocks)
    list(pool.map(diagonal, range(count)))
    # By distance from the diagonal, so that all rows have seen about equally much at any time.
    list(pool.map(pair, [(i, i + step) for step in range(1, count) for i in range(count - step)]))

    indices = np.empty((n, k), dtype=np.int64)
    similarities = np.empty((n, k), dtype=np.float64)
    failed = []
    for i, top in enumerate(tops):
        original = order[top : top + tile]
        found, left_over = _resolve(blocks[i], rows[original], rows, order, k, pool)
        indices[original], similarities[original] = found
        failed.append(original[left_over])
    again = np.concatenate(failed)
    if len(again):
        indices[again], similarities[again] = dense_nearest(rows[again], rows, k, exclude=again, pool=pool)
    return indices, similarities


def _rectangular(
    queries: FloatArray,
    references: FloatArray,
    left: Operand,
    right: Operand,
    order: IntArray,
    k: int,
    tile: int,
    pool: Executor,
    exclude: IntArray | None,
) -> Result:
    """exclude: [n], the place in ``order`` of the reference that each query may not find."""
    n = len(queries)
    bound = margin(left, right)
    indices = np.empty((n, k), dtype=np.int64)
    similarities = np.empty((n, k), dtype=np.float64)
    scratch = Scratch(tile * tile, right.matrix.dtype)

    def work(top: int) -> IntArray:
        mine = slice(top, min(top + tile, n))
        block = CandidateBlock(mine.stop - top, k, bound)
        for start in range(0, len(references), tile):
            raw = multiply(left.matrix[mine], right.matrix[start : start + tile], scratch.get())
            if exclude is not None:
                column = exclude[mine] - start
                here = np.flatnonzero((column >= 0) & (column < raw.shape[1]))
                hide(raw, here, column[here])
            if start == 0:
                block.raise_cut(kth_best_bound(raw, k))
            hits = above(raw, block.cut)
            row, column = np.divmod(hits, raw.shape[1])
            block.add(row, column + start, decode(raw.reshape(-1)[hits]))
        found, left_over = _resolve(block, queries[mine], references, order, k, None)
        indices[mine], similarities[mine] = found
        return left_over + top

    again = np.concatenate(list(pool.map(work, range(0, n, tile))))
    if len(again):
        itself = None if exclude is None else order[exclude[again]]
        indices[again], similarities[again] = dense_nearest(queries[again], references, k, exclude=itself, pool=pool)
    return indices, similarities


def _resolve(
    block: CandidateBlock, queries: FloatArray, references: FloatArray, order: IntArray, k: int, pool: Executor | None
) -> tuple[Result, IntArray]:
    """Exact neighbours [rows, k] from a block's candidates, and the rows that could not hold theirs."""
    block.finish()
    whole = np.flatnonzero(~block.overfull)
    indices = np.zeros((len(queries), k), dtype=np.int64)
    similarities = np.zeros((len(queries), k), dtype=np.float64)
    if len(whole):
        # Slots beyond a row's count are never read: any reference will do there.
        ids = np.clip(block.ids[whole, : int(block.count[whole].max())], 0, len(order) - 1)
        original = order[ids].astype(np.int32)
        indices[whole], similarities[whole] = best_of_candidates(
            queries[whole], references, original, block.count[whole], k, pool
        )
    return (indices, similarities), np.flatnonzero(block.overfull)


def _shuffled(n: int) -> IntArray:
    """A fixed random order: the first tile is then a fair sample, and no tile holds all of a row's neighbours."""
    return np.random.default_rng(0).permutation(n)
