from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval.exact import dense_nearest, similarities


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    dim=st.integers(1, 700),
    queries=st.integers(1, 9),
    columns=st.integers(1, 40),
)
def test_a_pair_has_the_same_similarity_whatever_is_computed_beside_it(seed, dim, queries, columns):
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((queries, dim)).astype(np.float32)
    right = rng.standard_normal((30, dim)).astype(np.float32)
    ids = rng.integers(0, 30, (queries, columns))
    together = similarities(left, right, ids)
    for i in range(queries):
        for j in {0, columns - 1}:
            alone = similarities(left[i : i + 1], right, ids[i : i + 1, j : j + 1])[0, 0]
            swapped = similarities(right[ids[i, j]][None], left, np.array([[i]]))[0, 0]
            assert together[i, j] == alone == swapped


def test_long_rows_and_lists_are_the_same_too():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 20000)).astype(np.float32), rng.standard_normal((9, 20000)).astype(np.float32)
    ids = np.tile(np.arange(9), (2, 3))
    together = similarities(left, right, ids)
    assert together[1, 5] == similarities(left[1:], right, np.array([[5]]))[0, 0]
    np.testing.assert_allclose(together[:, :9], left.astype(np.float64) @ right.astype(np.float64).T, rtol=1e-10)


def test_dense_search_orders_permuted_rows_by_their_own_similarity():
    # Rows that are permutations of one another have equal similarities to a constant query up to the last bits,
    # where a matrix product may decide either way.
    rng = np.random.default_rng(1)
    row = rng.standard_normal(24) * 2.0 ** rng.integers(-20, 1, 24)
    rows = np.stack([rng.permutation(row) for _ in range(60)]).astype(np.float32)
    rows /= np.float32(np.linalg.norm(row))
    query = np.full((1, 24), 24**-0.5, dtype=np.float32)
    indices, values = dense_nearest(query, rows, 60)
    own = similarities(query, rows, np.arange(60)[None])[0]
    assert len(np.unique(own)) > 1
    order = np.lexsort((np.arange(60), -own))
    assert indices[0].tolist() == order.tolist()
    assert values[0].tolist() == own[order].tolist()


def test_dense_search_equals_exact_sums(brute_force, embeddings):
    rows = embeddings(40, 7)
    indices, values = dense_nearest(rows, rows, 10)
    expected, exact = brute_force(rows, rows, 10)
    assert indices.tolist() == expected.tolist()
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-15)
