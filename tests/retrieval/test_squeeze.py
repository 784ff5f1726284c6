from __future__ import annotations

import faiss
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from embedcore.errors import UsageError
from embedcore.retrieval import tiles
from embedcore.retrieval.metrics import score
from embedcore.retrieval.search import nearest
from embedcore.retrieval.squeeze import int8, int8_references, principal_axes, signs, variants


def sides(queries, references):
    """Sides of every form, by name."""
    return {variant.name: variant.make() for variant in variants(queries, references)}


def cosines(queries, references):
    """All cosines, from float64."""
    left, right = (side.astype(float) for side in (queries, references))
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    return left @ right.T


@pytest.mark.parametrize(("n", "dim"), [(300, 20), (30, 50)])
@pytest.mark.parametrize("block", [2**22, 64])
def test_the_covariance_is_that_of_ledoit_and_wolf(embeddings, monkeypatch, n, dim, block):
    monkeypatch.setattr(tiles, "_BLOCK", block)
    references = embeddings(n, dim, centres=4, cone=0.5)
    axes, expected = principal_axes(references), LedoitWolf().fit(references.astype(float))
    assert axes.shrinkage == pytest.approx(expected.shrinkage_)
    covariance = axes.directions * axes.shrunk @ axes.directions.T
    np.testing.assert_allclose(covariance, expected.covariance_, atol=1e-10)
    assert axes.rank == min(dim, n - 1)


@pytest.mark.parametrize("n", [300, 40])
def test_whitened_similarities_are_those_of_mahalanobis(embeddings, n):
    queries, references = embeddings(25, 60, seed=1, cone=0.3), embeddings(n, 60, seed=2, cone=0.3)
    fitted = LedoitWolf().fit(references.astype(float))
    half = np.linalg.cholesky(fitted.precision_)
    expected = cosines((queries - fitted.location_) @ half, (references - fitted.location_) @ half)
    left, right = sides(queries, references)["whitened"]
    np.testing.assert_allclose(left.astype(float) @ right.T, expected, atol=1e-5)


def test_projections_are_those_of_scikit_learn(embeddings):
    queries, references = embeddings(25, 150, seed=1, cone=0.3), embeddings(200, 150, seed=2, cone=0.3)
    found = sides(queries, references)
    for size in (128, 64):
        fitted = PCA(size, svd_solver="full").fit(references.astype(float))
        expected = cosines(fitted.transform(queries.astype(float)), fitted.transform(references.astype(float)))
        left, right = found[f"pca {size}"]
        assert left.shape == (25, size)
        np.testing.assert_allclose(left.astype(float) @ right.T, expected, atol=1e-5)
        left, right = found[f"first {size}"]
        expected = cosines(queries[:, :size], references[:, :size])
        np.testing.assert_allclose(left.astype(float) @ right.T, expected, atol=1e-6)


def test_centring_subtracts_the_mean_of_the_references(embeddings):
    queries, references = embeddings(25, 30, seed=1), embeddings(80, 30, seed=2, cone=0.5)
    left, right = sides(queries, references)["centred"]
    mean = references.mean(axis=0, dtype=float)
    np.testing.assert_allclose(left.astype(float) @ right.T, cosines(queries - mean, references - mean), atol=1e-5)


def test_int8_is_that_of_faiss(embeddings):
    queries, references = embeddings(100, 48, seed=1), embeddings(400, 48, seed=2, centres=20)
    references[:, 7] = 0.125  # a dimension without a range
    index = faiss.IndexScalarQuantizer(48, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(references)
    index.add(references)
    # faiss gives tensors once a library has imported its support of torch.
    stored, ours = np.asarray(index.reconstruct_n(0, 400)), int8_references(references)
    step = np.ptp(references, axis=0) / 255
    assert (np.abs(ours - stored) <= 1.01 * step + 1e-6).all()  # a value on the border of two levels
    assert (np.abs(ours - stored) < 1e-6).mean() > 0.999
    _, expected = index.search(queries, 5)
    found = nearest(*int8(queries, references), 5).indices
    assert (found == np.asarray(expected)).mean() > 0.99
    products = queries.astype(float) @ ours.astype(float).T
    assert (found == np.argsort(-products, axis=1)[:, :5]).all()


def test_references_that_are_all_equal_have_neither_levels_nor_axes():
    references = np.full((4, 4), 0.5, np.float32)
    np.testing.assert_array_equal(int8_references(references), references)
    assert [variant.name for variant in variants(references, references)][:3] == ["float32", "centred", "int8"]


@pytest.mark.parametrize("dim", [3, 24, 100, 1280])
def test_binary_codes_are_in_the_order_of_hamming_with_stable_ties(embeddings, dim):
    queries, references = embeddings(20, dim, seed=1), embeddings(150, dim, seed=2)
    references[::7] = references[3]  # equal codes
    differing = (queries[:, None, :] > 0) != (references[None, :, :] > 0)
    expected = np.argsort(differing.sum(axis=2), axis=1, kind="stable")
    found = nearest(signs(queries), signs(references), 150).indices
    assert (found == expected).all()


def test_forms_and_bytes(embeddings):
    names = {variant.name: variant.bytes for variant in variants(embeddings(5, 300), embeddings(400, 300))}
    assert names == {
        "float32": 1200,
        "centred": 1200,
        "whitened": 1200,
        "pca 256": 1024,
        "pca 128": 512,
        "pca 64": 256,
        "first 256": 1024,
        "first 128": 512,
        "first 64": 256,
        "int8": 300,
        "pca 128 int8": 128,
        "binary": 38,
        "binary centred": 38,
    }
    few = {variant.name for variant in variants(embeddings(5, 300), embeddings(100, 300))}
    assert {name for name in names if name not in few} == {"pca 256", "pca 128", "pca 128 int8"}
    small = [variant.name for variant in variants(embeddings(5, 64), embeddings(100, 64))]
    assert small == ["float32", "centred", "whitened", "int8", "binary", "binary centred"]


def test_nothing_is_fitted_on_queries(embeddings):
    references = embeddings(200, 140, seed=2, cone=0.3)
    one, other = (sides(embeddings(30, 140, seed=seed, cone=seed), references) for seed in (3, 4))
    assert one.keys() == other.keys() and len(one) == 11
    for name, (_, stored) in one.items():
        np.testing.assert_array_equal(stored, other[name][1])


def test_every_side_has_rows_of_length_one(embeddings):
    for left, right in sides(embeddings(30, 140, cone=0.4), embeddings(200, 140, seed=2, cone=0.4)).values():
        assert left.dtype == right.dtype == np.float32 and left.shape[1] == right.shape[1]
        for side in (left, right):
            np.testing.assert_allclose(np.linalg.norm(side.astype(float), axis=1), 1, atol=1e-3)


def planted(rng, classes=40):
    """Queries and references whose class is in directions of little variance, below a few with much."""
    means = 0.1 * rng.standard_normal((classes, 20))

    def rows(each):
        labels = np.repeat(np.arange(classes), each)
        signal = means[labels] + 0.03 * rng.standard_normal((len(labels), 20))
        rows = np.concatenate([rng.standard_normal((len(labels), 4)) + 1, signal], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels

    return *rows(3), *rows(6)


def test_whitening_helps_where_noise_has_most_of_the_variance():
    queries, query_labels, references, labels = planted(np.random.default_rng(0))
    found = sides(queries, references)
    acc = {name: score(left, query_labels, right, labels, resamples=1).values["acc"]
           for name, (left, right) in found.items()}  # fmt: skip
    assert acc["whitened"] > acc["float32"] + 0.3 and acc["whitened"] > acc["centred"] + 0.3
    assert acc["int8"] == pytest.approx(acc["float32"], abs=0.05)


def test_rows_of_which_nothing_is_left(embeddings):
    references = embeddings(90, 100)
    references[4, :64] = 0
    found = {variant.name: variant for variant in variants(embeddings(5, 100, seed=1), references)}
    with pytest.raises(UsageError, match="zero vectors, first in row 4"):
        found["first 64"].make()
