from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval.exact import similarities
from embedcore.retrieval.gallery_growth import ALL, best_positives, drawn_for, grown_accuracy, none_drawn
from embedcore.retrieval.metrics import score
from embedcore.retrieval.search import nearest
from embedcore.retrieval.streamed import beaten_by


@given(st.integers(0, 7), st.data())
def test_the_probability_equals_the_share_of_all_choices(total, data):
    ahead, drawn = data.draw(st.integers(0, total)), data.draw(st.integers(0, total))
    choices = list(itertools.combinations(range(total), drawn))
    share = sum(all(one >= ahead for one in choice) for choice in choices) / len(choices)
    assert float(none_drawn(ahead, total, drawn)) == pytest.approx(share, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 10**8), st.integers(0, 60), st.floats(0, 1))
def test_the_probability_is_precise_for_large_galleries(total, ahead, share):
    ahead, drawn = min(ahead, total), round(share * total)
    exact = Fraction(1)
    for lost in range(ahead):
        exact *= Fraction(max(total - drawn - lost, 0), total - lost)
    found = float(none_drawn(ahead, total, drawn))
    assert 0 <= found <= 1 and found == pytest.approx(float(exact), rel=1e-5, abs=1e-300)
    assert float(none_drawn(0, total, drawn)) == 1


def test_many_ahead_of_many():
    """Against exact binomials where both numbers are large."""
    for total, ahead, drawn in [(10_000, 900, 30), (10_000, 30, 900), (5000, 2500, 2500), (100_000, 20, 50_000)]:
        exact = Fraction(math.comb(total - ahead, drawn), math.comb(total, drawn))
        assert float(none_drawn(ahead, total, drawn)) == pytest.approx(float(exact), rel=1e-7, abs=1e-300)


def test_the_galleries_for_which_distractors_suffice():
    assert drawn_for(10, 89) == {ALL: 89}
    assert drawn_for(10, 90) == {"10x": 90, ALL: 90}
    assert drawn_for(10, 10**6) == {"10x": 90, "100x": 990, ALL: 10**6}


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_best_positives_equal_brute_force(embeddings, leave_one_out):
    rng = np.random.default_rng(0)
    rows, labels = embeddings(60, 5, centres=8, spread=0.4), rng.integers(0, 9, 60)
    labels[3] = 20  # alone in its class
    rows[7] = rows[8]
    labels[7] = labels[8]
    others, of_others = embeddings(50, 5, seed=2, centres=8), rng.integers(2, 12, 50)
    sides = () if leave_one_out else (others, of_others)
    found = best_positives(rows, labels, *sides)
    references, classes = sides or (rows, labels)
    every = similarities(rows, references, np.broadcast_to(np.arange(len(references)), (60, len(references))))
    every[labels[:, None] != classes] = -np.inf
    if leave_one_out:
        np.fill_diagonal(every, -np.inf)
    best = every.max(axis=1)
    assert found.tolist() == np.where(np.isfinite(best), best, np.inf).tolist()
    assert np.isinf(found).any()


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_the_expected_accuracy_is_met_by_galleries_drawn_for_real(embeddings, leave_one_out):
    labels = np.repeat(np.arange(12), 3)
    rows, distractors = embeddings(36, 6, seed=3, centres=12, spread=0.5), embeddings(400, 6, seed=4)
    sides = (rows, labels) if leave_one_out else (rows, labels, embeddings(36, 6, seed=5, centres=12), labels)
    scores = score(*sides, resamples=1)
    beaten = beaten_by(rows, best_positives(*sides), distractors)
    acc, ci95 = grown_accuracy(scores.rank1, beaten, labels, references=36, distractors=400)
    assert list(acc) == ["10x", ALL] == list(ci95)
    assert all(low <= acc[name] <= high for name, (low, high) in ci95.items())

    def with_these(chosen):
        references = np.concatenate([sides[2] if len(sides) > 2 else rows, distractors[chosen]])
        found = nearest(rows, references, 2).indices
        if leave_one_out:
            found = np.array([row[row != query][:1] for query, row in enumerate(found)])
        first = found[:, 0]
        return np.mean((first < 36) & (labels[first.clip(max=35)] == labels))

    assert with_these(np.arange(400)) == pytest.approx(acc[ALL]) and with_these([]) == scores.values["acc"]
    rng = np.random.default_rng(0)
    drawn = [with_these(rng.choice(400, 324, replace=False)) for _ in range(300)]
    assert np.mean(drawn) == pytest.approx(acc["10x"], abs=5 * np.std(drawn) / np.sqrt(len(drawn)))
    assert acc[ALL] < scores.values["acc"]
