"""Search on a GPU: float32 products in tiles with a running top-k, re-ranked in float64 on the device.

Each row keeps more candidates than k. If the last one kept is within the margin of the k-th, a neighbour may have been
dropped: that row is searched again with more candidates, and then by float64 products with all references. If memory
runs out, the tile is halved and finished rows are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

import numpy as np
import torch

from embedcore.embed.memory import halving, is_out_of_memory, release_memory
from embedcore.retrieval.exact import best_of_candidates, dense_block, dense_nearest, settled
from embedcore.retrieval.operands import centre_of, margin, prepare
from embedcore.retrieval.threads import tile_workers
from embedcore.retrieval.tiles import FloatArray, Found, IntArray, unfilled

_TILE = 8192
_HALVINGS = 5  # of the tile, before out-of-memory is an error
_WIDE = 2**25  # float64 numbers per block on the device


def search_on_device(
    queries: FloatArray, references: FloatArray, k: int, device: str, tile: int | None = None
) -> Found:
    """Return the ``k`` nearest references of each query, with products on a torch device (``cpu`` included)."""
    with _float32_products(), tile_workers() as pool:
        search = _Search(queries, references, k, torch.device(device), pool)
        size = min(tile or _TILE, max(len(queries), len(references)))
        unsure = np.arange(len(queries))
        for kept in (k + max(16, k // 4), 8 * k + 128):
            if 4 * kept <= len(references):
                unsure = search.in_blocks(unsure, size, functools.partial(search.keep, kept=kept))
        search.in_blocks(unsure, max(1, min(512, _WIDE // len(references))), search.compare_all)
    return search.indices, search.similarities


class _Search:
    """Both sides of a search, on the device if they fit, and the neighbours found so far."""

    def __init__(
        self, queries: FloatArray, references: FloatArray, k: int, device: torch.device, pool: Executor
    ) -> None:
        self.queries, self.references, self.k, self.device, self.pool = queries, references, k, device, pool
        self.indices, self.similarities = unfilled(len(queries), k)
        centre = centre_of(references)
        self.left = prepare(queries, centre, "f32", pool=pool)
        right = prepare(references, centre, "f32", pool=pool).as_right()
        self.margin = margin(self.left, right)
        # If they do not fit, tiles are copied when needed, and CPU threads re-rank.
        placed = self._placed(right.matrix)
        self.right = right.matrix if placed is None else placed
        self.exact = None if device.type == "mps" else self._placed(torch.from_numpy(references))  # MPS has no float64

    def in_blocks(self, rows: IntArray, size: int, step: Callable[[IntArray, int], IntArray]) -> IntArray:
        """Call ``step(rows, size)`` with ``size`` rows at a time, fewer if memory runs out; return all its results."""
        unit, units, start = -(-size // 2**_HALVINGS), 2**_HALVINGS, 0
        results = [rows[:0]]

        def attempt(units: int) -> IntArray:
            return step(rows[start : start + units * unit], units * unit)

        while start < len(rows):
            result, units = halving(units, self.device, attempt)
            results.append(result)
            start += units * unit
        return np.concatenate(results)

    def keep(self, rows: IntArray, size: int, kept: int) -> IntArray:
        """Find neighbours of ``rows`` among the ``kept`` best float32 products; return rows that need more of them."""
        block = self.left.matrix[torch.from_numpy(rows)].to(self.device)
        scores = torch.empty((len(rows), 0), device=self.device)
        ids = torch.empty((len(rows), 0), dtype=torch.int64, device=self.device)
        for start in range(0, len(self.right), size):
            products = _multiply(block, self.right[start : start + size].to(self.device))
            best, place = products.topk(min(kept, products.shape[1]), dim=1)
            scores, ids = torch.cat([scores, best], dim=1), torch.cat([ids, place + start], dim=1)
            scores, place = scores.topk(min(kept, scores.shape[1]), dim=1)
            ids = ids.gather(1, place)
        ends = scores[:, [self.k - 1, kept - 1]].cpu().numpy()
        unsure = ends[:, 1] >= self.margin.cut(ends[:, 0])
        sure = np.flatnonzero(~unsure)
        self._rerank(rows[sure], ids[torch.from_numpy(sure).to(self.device)])
        return rows[unsure]

    def compare_all(self, rows: IntArray, _: int) -> IntArray:
        """Find the neighbours of ``rows`` by float64 products with all references."""
        if self.exact is None:
            found = dense_nearest(self.queries[rows], self.references, self.k, self.pool)
        else:
            found = dense_block(self.queries[rows], self.references, self.exact, self.k, self.pool)
        self.indices[rows], self.similarities[rows] = found
        return rows[:0]

    def _rerank(self, rows: IntArray, ids: torch.Tensor) -> None:
        """Re-rank the candidates ``ids`` [rows, c] in float64, on the device if it has float64."""
        queries, names = self.queries[rows], ids.cpu().numpy()
        if self.exact is None:
            count = np.full(len(rows), names.shape[1])
            found = best_of_candidates(queries, self.references, names, count, self.k, self.pool)
        else:
            wide = torch.from_numpy(queries).to(self.device).double()
            values = wide.new_empty(ids.shape)
            height = max(1, _WIDE // (ids.shape[1] * wide.shape[1]))
            for start in range(0, len(rows), height):
                part = slice(start, start + height)
                values[part] = torch.einsum("rd,rcd->rc", wide[part], self.exact[ids[part]].double())
            found = settled(names, values.cpu().numpy(), queries, self.references, self.k, self.pool)
        self.indices[rows], self.similarities[rows] = found

    def _placed(self, matrix: torch.Tensor) -> torch.Tensor | None:
        """Return the matrix on the device, or None if it does not fit."""
        try:
            return matrix.to(self.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory(self.device)
        return None


def _multiply(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    return queries @ references.T


@contextmanager
def _float32_products() -> Iterator[None]:
    """Disable TF32 for products on the GPU: the margin does not cover its error."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
