from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval.candidates import CandidateBlock, capacity
from embedcore.retrieval.operands import Margin


def add_all(block: CandidateBlock, scores: np.ndarray, width: int) -> None:
    """Add all of scores [rows, n] in pieces of ``width`` columns; ids are the columns."""
    for start in range(0, scores.shape[1], width):
        part = scores[:, start : start + width]
        row, column = np.nonzero(part >= block.cut[:, None])
        block.add(row, column + start, part[row, column])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    k=st.integers(1, 6),
    columns=st.integers(6, 900),
    width=st.integers(1, 900),
    levels=st.sampled_from([5, 40, 10**6]),
    rising=st.booleans(),
)
def test_a_block_keeps_what_the_margin_allows_or_is_overfull(seed, k, columns, width, levels, rising):
    scores = np.random.default_rng(seed).integers(0, levels, (7, columns)).astype(np.float32) / levels
    if rising:  # every piece is better than all before it: nothing is dropped early
        scores.sort(axis=1)
    margin = Margin(absolute=0.01, relative=0.0, precision="f32")
    block = CandidateBlock(7, k, margin)
    add_all(block, scores, width)
    ids, count = block.finish()
    cut = margin.cut(np.sort(scores, axis=1)[:, -k])
    for row in range(7):
        wanted = np.flatnonzero(scores[row] >= cut[row]).tolist()
        if block.overfull[row]:
            # Too many at the time: at the end, or while a prefix was all that had been seen.
            seen = [np.sort(scores[row, :stop])[::-1] for stop in range(k, columns + 1)]
            assert any((s >= margin.cut(s[k - 1 : k])[0]).sum() > capacity(k) for s in seen)
        else:
            assert sorted(ids[row, : count[row]].tolist()) == wanted


@pytest.mark.parametrize("extra", [0, 1])
def test_overfull_begins_beyond_the_capacity(extra):
    k = 3
    block = CandidateBlock(1, k, Margin(absolute=0.0, relative=0.0, precision="f32"))
    n = capacity(k) + extra
    block.add(np.zeros(n, dtype=np.int64), np.arange(n), np.ones(n, dtype=np.float32))
    block.finish()
    assert bool(block.overfull[0]) is (extra == 1)
