"""Searches in several threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedcore.retrieval.search import nearest
from embedcore.retrieval.streamed import beaten_by, nearest_streamed

ROWS = np.random.default_rng(0).standard_normal((4000, 32), dtype=np.float32)
QUERIES = ROWS[:1200] + np.float32(0.1)


def search(way: str) -> np.ndarray:
    if way == "leave-one-out":
        return nearest(ROWS, normalize=True).indices
    if way == "two sides":
        return nearest(QUERIES, ROWS, normalize=True).indices
    if way == "streamed":
        return nearest_streamed(QUERIES, [ROWS], normalize=True).indices
    return beaten_by(QUERIES, np.full(len(QUERIES), 0.5), [ROWS], normalize=True)


@pytest.mark.parametrize("way", ["leave-one-out", "two sides", "streamed", "counting"])
def test_a_search_in_inference_mode_finds_the_same(way):
    """The mode holds in one thread: another one may not write into tensors that were created in it."""
    expected = search(way)
    with torch.inference_mode():
        assert np.array_equal(search(way), expected)
