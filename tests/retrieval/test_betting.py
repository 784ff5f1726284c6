from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedcore.retrieval.betting import STAKES, log_gains, log_wealth

QUARTERS = st.integers(-4, 4).map(lambda quarters: quarters / 4)


def wealth(differences, population):
    return np.exp(log_wealth(log_gains(np.asarray(differences, np.float64), population)))


@given(st.lists(QUARTERS, min_size=2, max_size=6), st.data())
@settings(max_examples=80, deadline=None)
def test_the_expected_wealth_is_at_most_one_if_the_hypothesis_holds(population, data):
    """Exactly, over all orders of the draws, whatever the population is and whenever one stops."""
    values = np.array(population) - max(0.0, float(np.mean(population)))  # the mean is at most 0
    values /= max(1.0, -values.min())
    drawn = data.draw(st.integers(1, len(values)))
    orders = np.array(list(itertools.permutations(values)))[:, :drawn]
    assert wealth(orders, len(values)).mean() <= 1 + 1e-12


def test_parts_add_up():
    differences = np.random.default_rng(0).uniform(-1, 1, (3, 40))
    parts = log_gains(differences[:, :15], 100) + log_gains(differences, 100, 15)
    assert parts == pytest.approx(log_gains(differences, 100))


def test_equals_players_one_by_one():
    differences, population = np.random.default_rng(1).uniform(-1, 1, 25), 30
    expected = []
    for stake in STAKES:
        money, total = 1.0, 0.0
        for t, difference in enumerate(differences):
            mean = max(0.0, -total / (population - t))
            money *= 1 + stake * (difference - mean) / (1 + mean)
            total += difference
        expected.append(money)
    assert wealth(differences, population) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("shape", ["right or wrong", "rare"])
def test_wrong_alarms_at_any_look_are_rare(shape):
    """Populations with a mean of exactly 0, looked at four times: at most 5 % ever reach 20 times the money."""
    rng, runs, classes = np.random.default_rng(2), 1500, 200
    values = np.zeros(classes)
    if shape == "right or wrong":
        values[:60], values[60:120] = 1, -1
    else:  # many small gains and a few large losses: the worst case for tests that trust a normal distribution
        values[:180], values[180:] = 1 / 9, -1
    assert values.sum() == pytest.approx(0)
    orders = rng.permuted(np.tile(values, (runs, 1)), axis=1)
    ever = np.zeros(runs, bool)
    for look in (25, 50, 100, 200):
        ever |= wealth(orders[:, :look], classes) >= 20
    assert ever.sum() <= stats.binom.isf(0.001, runs, 0.05)


def test_a_true_difference_is_found():
    differences = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 300, p=[0.15, 0.45, 0.4])
    assert wealth(differences, 3000) > 1e4 and wealth(-differences, 3000) < 1e-1
    assert math.isfinite(log_wealth(log_gains(-np.ones(50), 60)))
