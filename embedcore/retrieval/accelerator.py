"""Candidates from a GPU: float32 products in tiles with a running top-k; the order is then decided in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from embedcore.retrieval.exact import IntArray, Result, best_of_candidates, dense_nearest
from embedcore.retrieval.operands import float32_margin
from embedcore.retrieval.tiles import FloatArray

_TILE = 8192


def search_on_device(
    queries: FloatArray,
    references: FloatArray,
    k: int,
    device: str,
    tile: int | None = None,
    exclude: IntArray | None = None,
) -> Result:
    """The ``k`` nearest references of each query, with the products on a torch device.

    Each row keeps some more than k. Where the last that it kept is still inside the margin of the k-th, one more
    might have been a neighbour: that row is searched again in float64.

    exclude: [n], the reference that each query may not find, or None.
    """
    import torch

    size = tile or _TILE
    kept = min(k + max(16, k // 4), len(references))
    bound = float32_margin(queries.shape[1], 1.01)  # rows are L2-normalised
    indices = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty((len(queries), k), dtype=np.float64)
    unsure = []
    on_device = torch.from_numpy(references).to(device)
    with torch.inference_mode(), _float32_products():
        for top in range(0, len(queries), size):
            rows = slice(top, min(top + size, len(queries)))
            block = torch.from_numpy(queries[rows]).to(device)
            scores = torch.full((len(block), 0), 0.0, device=device)
            ids = torch.full((len(block), 0), 0, dtype=torch.int64, device=device)
            for start in range(0, len(references), size):
                tile_scores = block @ on_device[start : start + size].T
                if exclude is not None:
                    column = exclude[rows] - start
                    here = np.flatnonzero((column >= 0) & (column < tile_scores.shape[1]))
                    at = torch.from_numpy(here).to(device), torch.from_numpy(column[here]).to(device)
                    tile_scores[at] = -torch.inf
                best, place = tile_scores.topk(min(kept, tile_scores.shape[1]), dim=1)
                scores, ids = torch.cat([scores, best], dim=1), torch.cat([ids, place + start], dim=1)
                scores, place = scores.topk(min(kept, scores.shape[1]), dim=1)
                ids = ids.gather(1, place)
            held = scores.cpu().numpy()
            # An excluded entry comes last where there is nothing else left to keep.
            count = np.count_nonzero(held > -np.inf, axis=1)
            names = ids.cpu().numpy().astype(np.int32)
            indices[rows], similarities[rows] = best_of_candidates(queries[rows], references, names, count, k)
            if kept < len(references):
                unsure.append(top + np.flatnonzero(held[:, -1] >= bound.cut(held[:, k - 1])))
    again = np.concatenate(unsure) if unsure else np.zeros(0, dtype=np.int64)
    if len(again):
        itself = None if exclude is None else exclude[again]
        indices[again], similarities[again] = dense_nearest(queries[again], references, k, exclude=itself)
    return indices, similarities


@contextmanager
def _float32_products() -> Iterator[None]:
    """Products on the GPU in float32 proper, not TF32, whose error the margin does not cover."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
