from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from embedcore.retrieval import alignment
from embedcore.retrieval.alignment import orthogonal_map


def rotation(dim, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


@pytest.mark.parametrize("block", [2**24, 60])
def test_the_map_is_that_of_scipy(embeddings, monkeypatch, block):
    monkeypatch.setattr(alignment, "_BLOCK", block)
    new, old = embeddings(200, 12), embeddings(200, 12, seed=5)
    expected, _ = orthogonal_procrustes(new.astype(float), old.astype(float))
    found = orthogonal_map(new, old)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(found @ found.T, np.eye(12), atol=1e-12)


def test_a_planted_rotation_is_undone_to_within_rounding(embeddings):
    old = embeddings(300, 24)
    new = (old @ rotation(24)).astype(np.float32)
    found = orthogonal_map(new[:150], old[:150])
    np.testing.assert_allclose(found, rotation(24).T, atol=1e-5)
    np.testing.assert_allclose(new[150:] @ found, old[150:], atol=1e-6)


def test_directions_without_a_row_stay_as_they_are(embeddings):
    old = embeddings(10, 40)
    np.testing.assert_allclose(orthogonal_map(old, old), np.eye(40), atol=1e-5)
    turned = old.copy()
    turned[:, :2] = old[:, 1::-1] * [1, -1]
    found = orthogonal_map(turned, old)
    np.testing.assert_allclose(turned @ found, old, atol=1e-5)
    apart = np.linalg.svd(np.concatenate([old, turned]))[2][20:]  # orthogonal to every row of both sides
    np.testing.assert_allclose(apart @ found, apart, atol=1e-5)
