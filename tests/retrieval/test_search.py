from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.retrieval import search as search_module
from embedcore.retrieval.search import nearest, nearest_except

PRECISIONS = ["bf16", "f32", None]

# Rows whose products and sums are exact in float64, so that equal similarities are exactly equal in any order of
# summation: signs over a power of two, two or four of sixteen entries of a row not zero.
SIGNS = st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4)
PLACES = st.lists(st.integers(0, 5), min_size=4, max_size=4, unique=True)


@st.composite
def exact_rows(draw: st.DrawFn, least: int = 1, most: int = 40) -> np.ndarray:
    rows = np.zeros((draw(st.integers(least, most)), 6), dtype=np.float32)
    for row in rows:
        row[draw(PLACES)] = 0.5 * np.array(draw(SIGNS), dtype=np.float32)
    return rows


def double_order(queries: np.ndarray, references: np.ndarray, k: int, itself: np.ndarray | None = None) -> np.ndarray:
    """Plain float64 brute force, for data without near ties."""
    similarities = queries.astype(np.float64) @ references.astype(np.float64).T
    if itself is not None:
        similarities[np.arange(len(queries)), itself] = -np.inf
    return np.argsort(-similarities, axis=1, kind="stable")[:, :k]


@pytest.fixture(params=PRECISIONS, ids=str)
def forced(request, monkeypatch):
    """Force each first pass, whatever the pilot would choose."""
    monkeypatch.setattr(search_module, "choose_precision", lambda *_: request.param)
    return request.param


@settings(max_examples=60, deadline=None)
@given(queries=exact_rows(), references=exact_rows(), k=st.integers(1, 50))
def test_equals_exact_brute_force_with_ties_and_copies(brute_force_plain, queries, references, k):
    found = nearest(queries, references, k)
    indices, similarities = brute_force_plain(queries, references, k)
    assert found.indices.tolist() == indices.tolist()
    assert found.similarities.tolist() == similarities.tolist()


@settings(max_examples=60, deadline=None)
@given(rows=exact_rows(least=2), k=st.integers(1, 50))
def test_leave_one_out_equals_exact_brute_force(brute_force_plain, rows, k):
    found = nearest(rows, None, k)
    indices, similarities = brute_force_plain(rows, None, k)
    assert found.indices.tolist() == indices.tolist()
    assert found.similarities.tolist() == similarities.tolist()


@pytest.fixture(scope="module")
def brute_force_plain():
    """Brute force in integers: entries are -1/2, 0 or 1/2."""

    def search(queries, references, k):
        left = (2 * queries).astype(int)
        right = left if references is None else (2 * references).astype(int)
        products = left @ right.T
        order = [sorted(range(len(right)), key=lambda j: (-row[j], j)) for row in products]
        if references is None:
            order = [[j for j in row if j != i] for i, row in enumerate(order)]
        order = np.array([row[:k] for row in order], dtype=np.int64)
        return order, np.take_along_axis(products, order, axis=1) / 4

    return search


@settings(max_examples=25, deadline=None)
@given(rows=exact_rows(least=150, most=250), k=st.integers(1, 15), tile=st.integers(16, 100))
def test_tiles_equal_brute_force_with_ties_that_straddle_the_kth_place(brute_force_plain, rows, k, tile):
    # 150 rows and more of 240 possible ones at similarities 0, ±1/4 …: copies and long ties everywhere.
    for references in (None, rows[::-1].copy()):
        found = nearest(rows, references, k, tile=tile)
        assert found.indices.tolist() == brute_force_plain(rows, references, k)[0].tolist()


@pytest.mark.parametrize("cone", [0.0, 3.0])
@pytest.mark.parametrize("tile", [64, 100, 2048])
def test_every_first_pass_gives_the_float64_order(forced, embeddings, tile, cone):
    rows = embeddings(700, 48, centres=40, cone=cone)
    found = nearest(rows, None, 10, tile=tile)
    assert (found.indices == double_order(rows, rows, 10, np.arange(len(rows)))).all()
    pair = np.einsum("ij,ikj->ik", rows.astype(np.float64), rows[found.indices].astype(np.float64))
    np.testing.assert_allclose(found.similarities, pair, rtol=0, atol=1e-14)
    queries, references = rows[:150], rows[100:]
    assert (nearest(queries, references, 10, tile=tile).indices == double_order(queries, references, 10)).all()


def test_near_ties_below_float32_are_ordered_in_float64(forced):
    # Similarities to the first axis that differ by 1e-9 to 1e-8, below the spacing of float32 near 1.
    angle = 1e-4 * (1 + 1e-4 * np.random.default_rng(3).permutation(600))
    references = np.zeros((600, 3), dtype=np.float32)
    references[:, 0], references[:, 1] = np.cos(angle), np.sin(angle)
    references[:, 2] = np.linspace(0, 1e-5, 600)
    query = np.array([[np.cos(1e-4), np.sin(1e-4), 0]], dtype=np.float32)
    found = nearest(query, references, 20, tile=64)
    exact = (query.astype(np.float64) * references.astype(np.float64)).sum(axis=1)
    assert len(np.unique(exact)) > len(np.unique(exact.astype(np.float32)))
    assert found.similarities[0].tolist() == np.sort(exact)[::-1][:20].tolist()
    assert (np.diff(found.similarities[0]) <= 0).all()


def test_rounding_in_one_direction_does_not_change_the_result(forced):
    # bfloat16 steps by 1/128 above a power of two and by 1/256 below. The 20 best rows lie where the query is rounded
    # down, and are rounded down themselves; the 100 others the other way round, which puts all of them first by more
    # than a step. Mirrored rows keep the mean at zero.
    rng = np.random.default_rng(0)

    def rows(n: int, high: float, low: float, left: int) -> np.ndarray:
        made = np.zeros((n, 180))
        is_high = np.argsort(rng.random((n, 60)), axis=1) < 30
        made[:, left : left + 60] = np.where(is_high, high / 8, low / 8)
        made[:, 120] = 0.25  # where the query is zero: similarities below 1/2 are rounded in finer steps
        return made

    best, others = rows(20, 1.0038, 0.9976, left=0), rows(100, 1.0040, 0.9960, left=60)
    references = np.concatenate([others, best, -others, -best]).astype(np.float32)
    query = np.repeat([1.0038 / 16, 1.0040 / 16, 0.0], 60)
    query[121:] = np.sqrt((1 - query @ query) / 59)
    found = nearest(query[None], references, 20, tile=64)
    assert sorted(found.indices[0].tolist()) == list(range(100, 120))


def test_rows_that_no_first_pass_can_hold_are_still_exact(forced, embeddings):
    # Thousands of nearly equal references: all are candidates of the approximate products.
    rows = embeddings(2500, 16, spread=1e-5, centres=1)
    found = nearest(rows, None, 7, tile=512)
    exact = rows.astype(np.float64)
    for i in range(0, 2500, 500):
        similarity = (exact[i] * exact).sum(axis=1)
        similarity[i] = -np.inf
        expected = similarity[np.lexsort((np.arange(2500), -similarity))[:7]]
        np.testing.assert_allclose(found.similarities[i], expected, rtol=0, atol=1e-15)


def test_thousands_of_copies(embeddings):
    copies = np.repeat(embeddings(3, 32, seed=1), [4000, 1, 2500], axis=0)
    shuffled = np.random.default_rng(0).permutation(len(copies))
    rows = copies[shuffled]
    found = nearest(rows, None, 5)
    for i in (0, 17, len(rows) - 1):
        same = np.flatnonzero((rows == rows[i]).all(axis=1))
        others = same[same != i]
        if len(others):
            assert found.indices[i].tolist() == others[:5].tolist()
    assert not (found.indices == np.arange(len(rows))[:, None]).any()


def test_self_is_left_out_by_index_and_copies_are_found():
    rows = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    found = nearest(rows, None, 2)
    assert found.indices.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert found.similarities.tolist() == [[1, 0], [1, 0], [0, 0]]


def test_symmetry_is_exact_to_the_last_bit(embeddings):
    rows = embeddings(900, 33)
    found = nearest(rows, None, 899, tile=128)
    full = np.full((900, 900), np.nan)
    np.put_along_axis(full, found.indices, found.similarities, axis=1)
    off = ~np.eye(900, dtype=bool)
    np.testing.assert_allclose(full[off], full.T[off], rtol=0, atol=1e-15)


@pytest.mark.parametrize("k", [1, 30, 31, 1000])
def test_k_beyond_the_references_returns_all(embeddings, k):
    rows = embeddings(31, 8)
    assert nearest(rows, None, k).indices.shape == (31, min(k, 30))
    assert nearest(rows[:4], rows, k).indices.shape == (4, min(k, 31))


def test_one_query_one_reference(embeddings):
    one = embeddings(1, 5)
    assert nearest(one, one, 3).indices.tolist() == [[0]]
    assert nearest(one, None, 3).indices.shape == (1, 0)


def test_one_query_with_many_references(embeddings):
    rows = embeddings(5000, 24)
    assert (nearest(rows[:1], rows, 20, tile=512).indices == double_order(rows[:1], rows, 20)).all()


@pytest.mark.parametrize("copies", [False, True])
def test_some_rows_leave_one_out_are_those_of_the_whole(embeddings, copies):
    rows = embeddings(400, 20)
    if copies:
        rows[50:120] = rows[200:270]
    some = np.array([7, 399, 60, 0])
    whole, part = nearest(rows, None, 12), nearest_except(rows[some], rows, some, 12)
    assert (part.indices == whole.indices[some]).all()
    # A float64 product, which may round otherwise in a smaller block, stands where nothing is near enough to matter.
    np.testing.assert_allclose(part.similarities, whole.similarities[some], rtol=0, atol=1e-14)


def test_device_search_equals_the_plain_one(embeddings):
    from embedcore.retrieval.accelerator import search_on_device

    rows = embeddings(900, 24, centres=30)
    close = embeddings(900, 24, seed=5, spread=1e-6, centres=2)
    for data in (rows, close):
        indices, similarities = search_on_device(data, data, 10, "cpu", 128)
        plain = nearest(data, data, 10)
        np.testing.assert_allclose(similarities, plain.similarities, rtol=0, atol=1e-15)
        if data is rows:
            assert (indices == plain.indices).all()


def test_torch_threads_are_left_as_they_were(embeddings):
    import torch

    before = torch.get_num_threads()
    nearest(embeddings(600, 8), None, 3, tile=128)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("queries", "references", "k", "message"),
    [
        (np.ones(4), None, 1, r"queries have shape \(4,\)"),
        (np.eye(3), np.eye(4), 1, "queries have 3 columns and references 4"),
        (np.eye(3), np.zeros((0, 3)), 1, r"references have shape \(0, 3\)"),
        (np.eye(3), None, 0, "k is 0"),
        (2 * np.eye(3), None, 1, "queries are not L2-normalised: row 0 has norm 2"),
        (
            np.eye(3),
            np.array([[1, 0, 0], [np.nan, 0, 0]]),
            1,
            r"references contain NaN or infinity, first in row 1 \(1 of",
        ),
        (np.array([[np.inf, 0.0]]), None, 1, "queries contain NaN or infinity"),
    ],
)
def test_bad_input_is_named(queries, references, k, message):
    with pytest.raises(UsageError, match=message):
        nearest(queries, references, k)


BOUNDED = """
import resource, sys
import numpy as np, torch
from embedcore.retrieval.search import nearest
torch.set_num_threads(2)
n, d = 12000, 32
rows = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
nearest(rows[:3000], None, 5, tile=512)  # libraries and threads are in place
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nearest(rows, None, 5, tile=512)
nearest(rows, rows[::-1].copy(), 5, tile=512)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kilobytes on Linux")
def test_memory_is_far_below_all_pairs():
    run = subprocess.run([sys.executable, "-c", BOUNDED], capture_output=True, text=True, check=True)
    all_pairs_mb = 12000 * 12000 * 4 // 2**20
    assert int(run.stdout) < all_pairs_mb / 5
