from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedcore.retrieval.betting import STAKES, log_gains, log_wealth

QUARTERS = st.integers(-4, 4).map(lambda quarters: quarters / 4)


def wealth(differences, population):
    """The mean wealth of the players after each difference."""
    return np.exp(log_wealth(log_gains(np.asarray(differences, np.float64), population)))


@given(st.lists(QUARTERS, min_size=2, max_size=6))
@settings(max_examples=80, deadline=None)
def test_the_expected_wealth_is_at_most_one_if_the_hypothesis_holds(population):
    """Exactly, over all orders of the draws, whatever the population is and whenever one looks."""
    values = np.array(population) - max(0.0, float(np.mean(population)))  # the mean is at most 0
    values /= max(1.0, -values.min())
    orders = np.array(list(itertools.permutations(values)))
    reached = wealth(orders, len(values))
    assert (reached.mean(axis=0) <= 1 + 1e-12).all()
    for limit in (1.5, 2, 4):
        assert (reached.max(axis=1) >= limit).mean() <= 1 / limit + 1e-12


def test_parts_add_up():
    differences = np.random.default_rng(0).uniform(-1, 1, (3, 40))
    whole = log_gains(differences, 100)
    assert log_gains(differences[:, :15], 100) == pytest.approx(whole[:, :15])
    assert whole[:, 14:15] + log_gains(differences, 100, 15) == pytest.approx(whole[:, 15:])


def test_equals_players_one_by_one():
    differences, population = np.random.default_rng(1).uniform(-1, 1, 25), 30
    expected = np.ones((len(STAKES), 26))
    for player, stake in enumerate(STAKES):
        total = 0.0
        for t, difference in enumerate(differences):
            mean = -total / (population - t)
            expected[player, t + 1] = expected[player, t] * (1 + stake * (difference - mean) / (1 + max(0.0, mean)))
            total += difference
    assert wealth(differences, population) == pytest.approx(expected[:, 1:].mean(axis=0))


@pytest.mark.parametrize("shape", ["right or wrong", "rare"])
def test_wrong_alarms_at_any_look_are_rare(shape):
    """Populations with a mean of exactly 0, looked at all the time: at most 5 % ever reach 20 times the wealth."""
    rng, runs, classes = np.random.default_rng(2), 1500, 200
    values = np.zeros(classes)
    if shape == "right or wrong":
        values[:60], values[60:120] = 1, -1
    else:  # many small gains and a few large losses: the worst case for tests that trust a normal distribution
        values[:180], values[180:] = 1 / 9, -1
    assert values.sum() == pytest.approx(0)
    orders = rng.permuted(np.tile(values, (runs, 1)), axis=1)
    ever = (wealth(orders, classes) >= 20).any(axis=1)
    assert ever.sum() <= stats.binom.isf(0.001, runs, 0.05)


def test_a_true_difference_is_found():
    differences = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 300, p=[0.15, 0.45, 0.4])
    assert wealth(differences, 3000)[-1] > 1e4 and wealth(-differences, 3000)[-1] < 0.5
    assert np.isfinite(log_wealth(log_gains(-np.ones(50), 60))).all()
