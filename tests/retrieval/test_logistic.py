"""Logistic regression is scikit-learn's, on the folds and within the limits that are documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from embedcore.retrieval import logistic
from embedcore.retrieval.logistic import FOLDS, STRENGTH, folds, logistic_right, why_not


def grouped(n, dim, classes, seed=0, spread=2.0):
    """Embeddings around the centres of their classes, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes) * 3 + 1
    rows = 2 + np.random.default_rng(9).standard_normal((classes, dim))[labels // 3]
    rows += spread * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def classified(queries, references, labels, tol=1e-8):
    """The classes that scikit-learn predicts, from features standardised by hand, fitted closely."""
    mean, scale = references.mean(axis=0, dtype=float), references.std(axis=0, dtype=float)
    fit = LogisticRegression(C=STRENGTH / references.shape[1], tol=tol, max_iter=10_000)
    return fit.fit((references - mean) / scale, labels).predict((queries - mean) / scale)


@pytest.mark.parametrize("classes", [2, 6])
def test_equals_scikit_learn(classes):
    references, labels = grouped(150, 16, classes)
    queries, wanted = grouped(400, 16, classes, seed=1)
    right, unfinished = logistic_right(queries, wanted, references, labels)
    expected = classified(queries, references, labels) == wanted
    assert unfinished == 0 and 0.5 < expected.mean() < 0.99
    assert np.mean(right != expected) <= 0.01  # the fits end at different tolerances


def test_leave_one_out_is_in_folds():
    rows, labels = grouped(120, 16, 5)
    right, unfinished = logistic_right(rows, labels, seed=3)
    fold = folds(labels, 3)
    expected = np.empty(len(labels), dtype=bool)
    for number in range(FOLDS):
        held = fold == number
        expected[held] = classified(rows[held], rows[~held], labels[~held]) == labels[held]
    assert unfinished == 0 and np.mean(right != expected) <= 0.02
    assert (logistic_right(rows, labels, seed=4)[0] != right).any()


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(0, 5))
def test_folds_are_stratified_and_of_equal_size(labels, seed):
    labels = np.array(labels)
    fold = folds(labels, seed)
    for part in (fold, *(fold[labels == label] for label in np.unique(labels))):
        sizes = np.bincount(part, minlength=FOLDS)
        assert len(sizes) == FOLDS and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("labels", [[4, 4], [4, 7], [4, 4, 4, 7], [4], [1, 1, 2, 2, 3]])
def test_tiny_sets(labels):
    labels = np.array(labels)
    rows = np.eye(len(labels), 8, dtype=np.float32)
    right, _ = logistic_right(rows, labels)
    assert right.shape == labels.shape
    if labels.tolist() == [4, 4]:
        assert right.all()  # no other class is known
    assert not logistic_right(rows, labels, rows[:1], np.array([99]))[0].any()


def test_a_fit_that_ends_early_is_counted(monkeypatch):
    rows, labels = grouped(60, 16, 5)
    monkeypatch.setattr(logistic, "ITERATIONS", 1)
    assert logistic_right(rows, labels)[1] == FOLDS
    assert logistic_right(rows, labels, rows, labels)[1] == 1


def test_what_would_take_too_long_is_left_out(monkeypatch):
    ten = np.arange(50_000) % 10
    assert why_not(ten, None) == why_not(ten, np.arange(1000)) == ""
    assert why_not(np.arange(50_000) % 11, None) == "50,000 references x 11 classes x 5 folds are more than 2,500,000"
    assert why_not(ten, np.arange(2000)) == "2,000 references x 2,000 classes are more than 2,500,000"
    assert why_not(ten, np.zeros(50_001, dtype=int)) == "50,001 references are more than 50,000"
    monkeypatch.setattr("embedcore.retrieval.logistic.find_spec", lambda name: None)
    assert why_not(ten, None) == "it needs scikit-learn: pip install 'embedcore[probe]'"
