"""Candidates for the k nearest, from tiles of rough products.

Every tile is multiplied, compared with the running cut of its rows, and forgotten: memory is bounded by the tiles in
flight and the candidate lists. Leave-one-out multiplies only the tiles on and above the diagonal; since q·r = r·q,
each serves its rows and, read by columns, its columns too.
"""

from __future__ import annotations

import numpy as np

from embedcore.retrieval.candidates import CandidateBlock, capacity
from embedcore.retrieval.exact import IntArray, Result, best_of_candidates, dense_nearest
from embedcore.retrieval.operands import Precision, bf16_pays, margin, prepare
from embedcore.retrieval.tiles import FloatArray, RawTile, above, decode, hide, kth_best_bound, multiply
from embedcore.retrieval.workers import Scratch, Workers

_PILOT = 32
_LISTS_BYTES = 300 * 2**20  # candidate lists of all rows at once, at most


def choose_precision(queries: FloatArray, references: FloatArray, k: int) -> Precision | None:
    """The cheapest first pass whose margin leaves short candidate lists, tried on a few queries; None if neither does.

    Where similarities lie closer together than the margin, the rough pass would name every reference and decide
    nothing. For leave-one-out ``k`` includes the query itself.
    """
    import torch

    rng = np.random.default_rng(0)
    pilot = queries[np.sort(rng.choice(len(queries), min(_PILOT, len(queries)), replace=False))]
    centre = _centre(references)
    products = np.empty((len(pilot), len(references)), dtype=np.float32)
    for start in range(0, len(references), 4096):
        part = torch.from_numpy(references[start : start + 4096])
        products[:, start : start + 4096] = torch.mm(torch.from_numpy(pilot), part.T).numpy()
    products -= centre @ centre
    kth = np.partition(products, len(references) - k, axis=1)[:, len(references) - k]
    precisions: tuple[Precision, ...] = ("bf16", "f32") if bf16_pays() else ("f32",)
    for precision in precisions:
        bound = margin(prepare(pilot, centre, precision), prepare(references[:1024], centre, precision))
        lengths = np.count_nonzero(products >= bound.cut(kth)[:, None], axis=1)
        if np.mean(lengths > 0.75 * capacity(k)) <= 0.1:
            return precision
    return None


def search_symmetric(rows: FloatArray, k: int, precision: Precision, tile: int, pool: Workers) -> Result:
    """The ``k`` nearest other rows of every row; each pair of rows is multiplied once."""
    n = len(rows)
    if n * capacity(k) * 8 > _LISTS_BYTES:
        return search_pairs(rows, rows, k, precision, tile, pool, itself=np.arange(n))
    order = _shuffled(n)
    left = prepare(rows, _centre(rows), precision, order, pool)
    right = left.as_right()
    tops = range(0, n, tile)
    bound = margin(left, right)
    blocks = [CandidateBlock(min(tile, n - top), k, bound) for top in tops]
    scratch = Scratch(tile * tile, left.matrix.dtype)

    def product(i: int, j: int) -> RawTile:
        a, b = tops[i], tops[j]
        return multiply(left.matrix[a : a + tile], right.matrix[b : b + tile], scratch.get())

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
        indices[again], similarities[again] = _again(rows[again], rows, k, precision, tile, pool, itself=again)
    return indices, similarities


def search_pairs(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    precision: Precision,
    tile: int,
    pool: Workers,
    itself: IntArray | None,
) -> Result:
    """The ``k`` nearest references of every query.

    itself: [n], the reference that each query may not find, or None.
    """
    n = len(queries)
    order = _shuffled(len(references))
    exclude = None if itself is None else _inverse(order)[itself]
    centre = _centre(references)
    left = prepare(queries, centre, precision, pool=pool)
    right = prepare(references, centre, precision, order, pool).as_right()
    bound = margin(left, right)
    indices = np.empty((n, k), dtype=np.int64)
    similarities = np.empty((n, k), dtype=np.float64)
    scratch = Scratch(tile * tile, right.matrix.dtype)

    # Blocks of equal height, a whole number of them for each worker: none ends with nothing to do.
    rounds = -(-n // (tile * pool.count))
    height = -(-n // (rounds * pool.count))

    def work(top: int) -> IntArray:
        mine = slice(top, min(top + height, n))
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

    again = np.concatenate(list(pool.map(work, range(0, n, height))))
    if len(again):
        mine = None if itself is None else itself[again]
        indices[again], similarities[again] = _again(queries[again], references, k, precision, tile, pool, mine)
    return indices, similarities


def _again(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    precision: Precision,
    tile: int,
    pool: Workers,
    itself: IntArray | None,
) -> Result:
    """Search the rows whose candidates did not fit, with the next finer products."""
    if precision == "bf16":
        return search_pairs(queries, references, k, "f32", tile, pool, itself)
    return dense_nearest(queries, references, k, exclude=itself, pool=pool)


def _resolve(
    block: CandidateBlock, queries: FloatArray, references: FloatArray, order: IntArray, k: int, pool: Workers | None
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


def _inverse(order: IntArray) -> IntArray:
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place


def _centre(references: FloatArray) -> FloatArray:
    """The mean row (of a sample, if there are many): whatever it is, the margin accounts for it."""
    sample: FloatArray = references[:: max(1, len(references) // 4096)].mean(axis=0, dtype=np.float32)
    return sample
