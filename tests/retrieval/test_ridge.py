"""Ridge regression equals scikit-learn's, and its leave-one-out predictions equal refits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeClassifierCV, RidgeCV

from embedcore.retrieval import tiles
from embedcore.retrieval.ridge import fit_ridge, ridge_right

# More images than dimensions and fewer; few classes and nearly as many as images.
SHAPES = [(60, 12, 3), (60, 12, 20), (30, 50, 5), (30, 50, 28)]


def grouped(n, dim, classes, seed=0):
    """Embeddings around the centres of their classes, in a narrow cone, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes) * 7 + 3
    rows = 3 + np.random.default_rng(classes).standard_normal((classes, dim))[labels // 7]
    rows += 0.7 * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def one_hot(labels, classes=None):
    return (labels[:, None] == (np.unique(labels) if classes is None else classes)).astype(float)


def refitted(rows, targets, penalty):
    """The targets of each row, predicted by a fit to all others."""
    found = []
    for i in range(len(rows)):
        others = np.arange(len(rows)) != i
        x, y = rows[others].astype(float), targets[others]
        centred = x - x.mean(axis=0)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean(axis=0)))
        found.append(y.mean(axis=0) + (rows[i] - x.mean(axis=0)) @ weights)
    return np.array(found)


@pytest.mark.parametrize(("n", "dim", "classes"), SHAPES)
def test_equals_scikit_learn(n, dim, classes):
    rows, labels = grouped(n, dim, classes)
    model = fit_ridge(rows, labels)
    peer = RidgeCV(alphas=model.penalties, store_cv_results=True).fit(rows.astype(float), one_hot(labels))
    np.testing.assert_allclose(model.errors, peer.cv_results_.mean(axis=0).sum(axis=0), rtol=1e-6)
    assert model.penalty == pytest.approx(peer.alpha_)
    np.testing.assert_allclose(model.weights, peer.coef_.T, atol=1e-6)
    np.testing.assert_allclose(model.bias, peer.intercept_, atol=1e-6)
    others, wanted = grouped(200, dim, classes, seed=1)
    np.testing.assert_allclose(model.predictions(others), peer.predict(others.astype(float)), atol=1e-6)
    classifier = RidgeClassifierCV(alphas=model.penalties).fit(rows.astype(float), labels)
    assert classifier.alpha_ == pytest.approx(model.penalty)
    guess = classifier.predict(others.astype(float))
    assert ((guess == wanted) == ridge_right(others, wanted, rows, labels)).all()


@pytest.mark.parametrize(("n", "dim", "classes"), SHAPES)
def test_leave_one_out_equals_refits(n, dim, classes):
    rows, labels = grouped(n, dim, classes)
    model = fit_ridge(rows, labels)
    targets, codes = one_hot(labels), np.searchsorted(model.classes, labels)
    expected = refitted(rows, targets, model.penalty)
    np.testing.assert_allclose(model.left_out(rows, codes, model.leverage), expected, atol=1e-6)
    guess = model.classes[expected.argmax(axis=1)]
    assert ((guess == labels) == ridge_right(rows, labels)).all()
    for penalty, error in zip(model.penalties, model.errors, strict=True):
        off = refitted(rows, targets, penalty) - targets
        assert error == pytest.approx(np.square(off).sum(axis=1).mean(), rel=1e-6)
    i = 5
    others = np.arange(n) != i
    peer = Ridge(alpha=model.penalty).fit(rows[others].astype(float), targets[others])
    np.testing.assert_allclose(expected[i], peer.predict(rows[i : i + 1].astype(float))[0], atol=1e-6)


@pytest.mark.parametrize(("n", "dim", "classes"), SHAPES)
def test_blocks_change_nothing(monkeypatch, n, dim, classes):
    rows, labels = grouped(n, dim, classes)
    whole, right = fit_ridge(rows, labels), ridge_right(rows, labels)
    monkeypatch.setattr(tiles, "_BLOCK", 7 * dim)
    parts = fit_ridge(rows, labels)
    for name in ("errors", "leverage", "weights", "bias"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-7, atol=1e-9)
    assert (ridge_right(rows, labels) == right).all()


@st.composite
def labelled(draw):
    """Rows of whole halves, copies among them, of classes some of which have one image."""
    n, dim = draw(st.integers(2, 20)), draw(st.integers(4, 12))
    labels = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    rows = np.zeros((n, dim), dtype=np.float32)
    for row in rows:
        places = draw(st.permutations(range(dim)))[:4]
        row[places] = draw(st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4))
    return rows, labels


@settings(max_examples=60, deadline=None)
@given(labelled())
def test_any_shape_equals_refits(data):
    rows, labels = data
    model = fit_ridge(rows, labels)
    assert (model.leverage > 0).all() and (model.leverage < 1 + 1e-9).all()
    found = model.left_out(rows, np.searchsorted(model.classes, labels), model.leverage)
    expected = refitted(rows, one_hot(labels, model.classes), model.penalty)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ridge_right(rows, labels).shape == labels.shape


def test_one_reference_and_equal_references():
    rows, labels = grouped(4, 6, 2)
    assert ridge_right(rows, labels, rows[:1], labels[:1]).tolist() == (labels == labels[0]).tolist()
    same = np.repeat(rows[:1], 5, axis=0)
    assert ridge_right(rows[:1], np.array([8]), same, np.array([8, 8, 8, 2, 2])).all()


def test_a_class_without_a_reference_is_wrong():
    rows, labels = grouped(20, 6, 2)
    assert not ridge_right(rows, np.full(20, 99), rows, labels).any()
