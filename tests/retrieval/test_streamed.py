"""Search and counting in blocks equal `nearest` and brute force on all references together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore import nearest_streamed
from embedcore.errors import UsageError
from embedcore.retrieval import search as search_module
from embedcore.retrieval import streamed as streamed_module
from embedcore.retrieval.exact import similarities
from embedcore.retrieval.search import nearest
from embedcore.retrieval.streamed import beaten_by

PRECISIONS = ["bf16", "f32", None]


def made(seed, n, d, *, kinds, cone=0.0):
    """Rows around a few common points, with copies and near-copies; float32 [n, d] of length 1."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((kinds, d))[rng.integers(0, kinds, n)] + cone
    rows += rng.choice([0.0, 1e-8, 1e-6, 0.3], (n, 1)) * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cut(rows, sizes):
    return np.split(rows, np.cumsum(sizes).clip(max=len(rows)))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, and tiles however few products there are."""

    def set_to(rows, precision="f32"):
        monkeypatch.setattr(streamed_module, "_NUMBERS", 1)
        monkeypatch.setattr(streamed_module, "_FEWEST", rows)
        monkeypatch.setattr(search_module, "_SMALL", 0)
        monkeypatch.setattr(search_module, "choose_precision", lambda *_: precision)
        monkeypatch.setattr(streamed_module, "_precision", lambda *_: precision or "f32")

    return set_to


def check_nearest(queries, references, blocks, k, **options):
    found, whole = nearest_streamed(queries, blocks, k, **options), nearest(queries, references, k)
    assert found.indices.tolist() == whole.indices.tolist()
    np.testing.assert_allclose(found.similarities, whole.similarities, rtol=0, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 90),
    k=st.integers(1, 12),
    kinds=st.sampled_from([1, 3, 40]),
    sizes=st.lists(st.integers(0, 30), max_size=6),
    block=st.integers(1, 40),
)
def test_blocks_of_any_size_equal_the_search_of_all(seed, n, k, kinds, sizes, block):
    references = made(seed, n, 7, kinds=kinds)
    queries = np.concatenate([made(seed, 5, 7, kinds=kinds), references[:3]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed_module, "_NUMBERS", 1)
        patch.setattr(streamed_module, "_FEWEST", block)
        check_nearest(queries, references, cut(references, sizes), k)


@pytest.mark.parametrize("cone", [0.0, 3.0])
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_tiles_of_each_precision_equal_the_search_of_all(small_blocks, precision, cone):
    references, queries = made(1, 3000, 24, kinds=500, cone=cone), made(1, 700, 24, kinds=500, cone=cone)
    small_blocks(411, precision)
    check_nearest(queries, references, references, 6)
    check_nearest(queries, references[::-1].copy(), iter(cut(references[::-1], [1000, 7, 0, 3])), 6)


def test_equal_rows_in_all_blocks_are_found_in_the_order_of_their_indices(small_blocks, embeddings):
    rows = embeddings(30, 8)
    references = np.tile(rows, (40, 1))
    small_blocks(333)
    found = nearest_streamed(rows, references, 35)
    assert (found.indices == np.arange(30)[:, None] + 30 * np.arange(35)).all()


def test_near_ties_across_blocks_are_ordered_in_float64(small_blocks):
    angle = 1e-4 * (1 + 1e-4 * np.random.default_rng(3).permutation(600))
    references = np.zeros((600, 3), dtype=np.float32)
    references[:, 0], references[:, 1] = np.cos(angle), np.sin(angle)
    references[:, 2] = np.linspace(0, 1e-5, 600)
    query = np.array([[np.cos(1e-4), np.sin(1e-4), 0]], dtype=np.float32)
    exact = (query.astype(np.float64) * references.astype(np.float64)).sum(axis=1)
    small_blocks(170)
    found = nearest_streamed(query, references, 20)
    assert found.similarities[0].tolist() == np.sort(exact)[::-1][:20].tolist()


def test_files_are_searched(tmp_path, small_blocks, embeddings):
    references, queries = embeddings(900, 16), embeddings(50, 16, seed=1)
    for number, part in enumerate(np.array_split(references, 4)):
        np.save(tmp_path / f"{number}.npy", 3 * part)
    small_blocks(200)
    whole = nearest(queries, 3 * references, 5, normalize=True)
    assert np.array_equal(nearest_streamed(queries, tmp_path, normalize=True).indices, whole.indices)


def test_a_torch_device_finds_the_same(small_blocks, embeddings):
    references, queries = embeddings(900, 16, centres=50), embeddings(50, 16, seed=1)
    small_blocks(200)
    check_nearest(queries, references, references, 5, device="auto")


def counts_by_hand(queries, limits, references):
    every = np.broadcast_to(np.arange(len(references)), (len(queries), len(references)))
    return (similarities(queries, references, every) > np.asarray(limits)[:, None]).sum(axis=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(0, 90),
    kinds=st.sampled_from([1, 3, 40]),
    sizes=st.lists(st.integers(0, 30), max_size=6),
    block=st.integers(1, 40),
    precision=st.sampled_from(["bf16", "f32"]),
)
def test_counts_equal_brute_force_with_ties_and_copies(seed, n, kinds, sizes, block, precision):
    rng = np.random.default_rng(seed)
    positives, references = made(seed, 9, 7, kinds=kinds), made(seed + 1, n, 7, kinds=kinds)
    queries = made(seed, 9, 7, kinds=kinds)[rng.permutation(9)]
    references = np.concatenate([references, positives[:4]])  # as similar as the best positive: these do not count
    limits = similarities(queries, positives, np.arange(9)[:, None])[:, 0]
    limits[7], limits[8] = np.inf, -np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed_module, "_NUMBERS", 1)
        patch.setattr(streamed_module, "_FEWEST", block)
        patch.setattr(streamed_module, "_precision", lambda *_: precision)
        found = beaten_by(queries, limits, cut(references, sizes))
    assert found.dtype == np.int64
    assert found.tolist() == counts_by_hand(queries, limits, references).tolist()


@pytest.mark.parametrize("cone", [0.0, 3.0])
@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_counts_of_tiles_equal_brute_force(small_blocks, monkeypatch, precision, cone):
    monkeypatch.setattr(streamed_module, "_TILE", 64)
    references, queries = made(1, 2000, 24, kinds=400, cone=cone), made(2, 300, 24, kinds=400, cone=cone)
    rng = np.random.default_rng(0)
    limits = similarities(queries, references, rng.integers(0, 2000, (300, 1)))[:, 0]
    small_blocks(611, precision)
    found = beaten_by(queries, limits, references)
    assert found.tolist() == counts_by_hand(queries, limits, references).tolist()
    assert found.min() < 300 and found.max() > 1000


def test_the_first_pass_is_bf16_only_if_it_is_faster_and_decides(monkeypatch, embeddings):
    references, queries = embeddings(2000, 64), embeddings(100, 64, seed=1)
    high, middle = np.full(100, 0.9), np.full(100, 0.0)
    monkeypatch.setattr(streamed_module, "bf16_pays", lambda: True)
    assert streamed_module._precision(queries, high, references) == "bf16"
    assert streamed_module._precision(queries, middle, references) == "f32"
    monkeypatch.setattr(streamed_module, "bf16_pays", lambda: False)
    assert streamed_module._precision(queries, high, references) == "f32"


def test_bad_references_are_named(embeddings):
    rows = embeddings(10, 4)
    for search in (lambda blocks: nearest_streamed(rows, blocks), lambda blocks: beaten_by(rows, np.zeros(10), blocks)):
        with pytest.raises(UsageError, match="references from row 10 on are not L2-normalised: row 2 has norm 2"):
            search([rows, np.concatenate([rows[:2], 2 * rows])])
        with pytest.raises(UsageError, match="queries have 4 columns and references 3"):
            search([rows, embeddings(5, 3)])
        with pytest.raises(UsageError, match="must be two-dimensional"):
            search([rows[0]])
    with pytest.raises(UsageError, match="no references: all blocks are empty"):
        nearest_streamed(rows, [])
    assert beaten_by(rows, np.zeros(10), []).tolist() == [0] * 10
    with pytest.raises(UsageError, match=r"best_positive has shape \(9,\): each of the 10 queries"):
        beaten_by(rows, np.zeros(9), [rows])
