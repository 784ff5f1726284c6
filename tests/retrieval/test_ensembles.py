from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.retrieval.ensembles import concatenated, greedy, nearest_hits


def test_the_similarity_of_a_concatenation_is_the_mean_of_the_similarities(embeddings):
    parts = [embeddings(40, dim, seed=dim) for dim in (5, 12, 30)]
    joined = concatenated(parts)
    expected = np.mean([part.astype(float) @ part.T.astype(float) for part in parts], axis=0)
    np.testing.assert_allclose(joined.astype(float) @ joined.T.astype(float), expected, atol=1e-6)
    assert joined.dtype == np.float32 and joined.shape == (40, 47)
    np.testing.assert_array_equal(concatenated(parts[:1]), parts[0])


@pytest.mark.parametrize("alone", [False, True])
def test_hits_equal_brute_force(embeddings, alone):
    labels = np.random.default_rng(0).integers(0, 12, 60)
    rows = embeddings(60, 8, seed=3)
    some = np.arange(0, 60, 3)
    products = rows[some].astype(float) @ rows.T.astype(float)
    if alone:
        products[np.arange(len(some)), some] = -np.inf
    expected = labels[products.argmax(axis=1)] == labels[some]
    found = nearest_hits(rows[some], labels[some], rows, labels, some if alone else None)
    assert (found == expected).all() and found.all() != alone


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(-20, 20), min_size=1), st.integers(1, 4))
def test_greedy_is_exhaustive_for_sums(weights, most):
    found = greedy([*weights], lambda chosen: sum(weights[name] for name in chosen), most)
    assert [len(chosen) for chosen in found] == [*range(1, min(most, len(weights)) + 1)]
    for chosen in found:
        best = max(sum(weights[name] for name in each) for each in itertools.combinations(weights, len(chosen)))
        assert sum(weights[name] for name in chosen) == best


def test_each_step_is_the_best_of_all_further_names():
    rng = np.random.default_rng(0)
    names = "abcdefg"
    values = {frozenset(s): rng.random() for n in (1, 2, 3) for s in itertools.combinations(names, n)}
    asked = []

    def value(chosen):
        asked.append(chosen)
        return values[frozenset(chosen)]

    single, pair, triple = greedy(names, value)
    for smaller, larger in (((), single), (single, pair), (pair, triple)):
        assert larger[:-1] == smaller
        others = [frozenset((*smaller, name)) for name in names if name not in smaller]
        assert values[frozenset(larger)] == max(values[each] for each in others)
    assert len(asked) == 7 + 6 + 5


def test_the_first_of_equal_values_is_taken():
    assert greedy("ab", lambda chosen: 0.0) == [("a",), ("a", "b")]
