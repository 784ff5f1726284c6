"""Measures of embeddings without labels, against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors

from embedcore.retrieval.unlabelled import effective_rank, found_by_views, near_duplicates


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sides(seed, n=200, dim=12, noise=0.9):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n, dim))
    return unit(images + noise * rng.standard_normal((n, dim))), unit(images)


@pytest.mark.parametrize("n", [2, 4, 200])
def test_views_find_what_brute_force_finds(n):
    views, images = sides(n, n)
    ordered = NearestNeighbors(metric="cosine", algorithm="brute").fit(images.astype(np.float64))
    nearest = ordered.kneighbors(views.astype(np.float64), min(5, n), return_distance=False)
    found = found_by_views(views, images)
    assert found.first.tolist() == [row[0] == number for number, row in enumerate(nearest)]
    assert found.among_five.tolist() == [number in row for number, row in enumerate(nearest)]
    assert n < 200 or 0.1 < found.first.mean() < found.among_five.mean() < 1


def test_near_duplicates_are_counted_without_the_image_itself():
    rng = np.random.default_rng(0)
    images = unit(rng.standard_normal((300, 3)))
    products = images.astype(np.float64) @ images.T
    np.fill_diagonal(products, -1)
    assert near_duplicates(images) == pytest.approx((products.max(axis=1) >= 0.95).mean())
    assert near_duplicates(np.eye(4, dtype=np.float32)) == 0
    assert near_duplicates(np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]) == 0.5


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_equal_variance_in_all_directions_has_the_rank_of_the_space(dim):
    axes = np.concatenate([np.eye(dim), -np.eye(dim)]).astype(np.float32)
    assert effective_rank(axes) == pytest.approx(dim)
    wide = np.concatenate([axes, np.zeros((2 * dim, 3 * dim), np.float32)], axis=1)  # fewer rows than columns
    assert effective_rank(wide) == pytest.approx(dim)


def test_one_direction_has_rank_one():
    line = np.linspace(-1, 1, 50)[:, None] * unit(np.ones((1, 8))) + 3
    assert effective_rank(line.astype(np.float32)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(unit(np.ones((50, 8)) * 0.37)) == 1.0
    assert effective_rank(unit(np.ones((3, 8)) * 0.37)) == 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 40), st.floats(0, 3))
def test_the_rank_is_that_of_the_singular_values(seed, n, dim, decay):
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((n, dim)) * np.exp(-decay * np.arange(dim)) + 1)
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    squares = np.linalg.svd(centred, compute_uv=False) ** 2
    found = effective_rank(rows)
    assert 1 - 1e-9 <= found <= max(1, min(n - 1, dim)) + 1e-6
    if squares.sum() > 1e-9:
        assert found == pytest.approx(np.exp(entropy(squares)), rel=1e-5)
    if squares.sum() > 1e-3:  # far above the rounding of float32
        turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        assert effective_rank((rows @ turn).astype(np.float32)) == pytest.approx(found, rel=1e-2)


def test_more_rows_than_are_centred_at_once(monkeypatch):
    rows = sides(3, 500, 16)[0]
    whole = effective_rank(rows)
    monkeypatch.setattr("embedcore.retrieval.unlabelled._ROWS", 64)
    assert effective_rank(rows) == pytest.approx(whole)
