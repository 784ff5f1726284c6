"""Ramps in a series of numbers, told apart from noise and from steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.compare.trend import LEAST_RUNS, Ramp, find_ramps, spread_of

LIMIT, SPREAD = 0.051, 0.014


def ramp_of(values, limit=LIMIT, least=SPREAD):
    values = [float(value) for value in values]
    ramps = find_ramps(values, limit, spread_of(values, least))
    assert len(ramps) <= 1
    return ramps[0] if ramps else None


def noise(seed, count, sd=SPREAD):
    return np.random.default_rng(seed).normal(0, sd, count)


@pytest.mark.parametrize("sd", [0.005, 0.014, 0.03, 0.08])
@pytest.mark.parametrize("count", [6, 10, 20])
def test_noise_alone_makes_no_trend(count, sd):
    found = [ramp_of(noise(seed, count, sd)) for seed in range(500)]
    assert sum(ramp is not None for ramp in found) <= 2


@pytest.mark.parametrize("rate", [-0.01, 0.01])
def test_a_creep_of_one_percent_over_15_runs_is_found(rate):
    found = [ramp_of(noise(seed, 15, 0.01) + rate * np.arange(15)) for seed in range(200)]
    assert sum(ramp is not None for ramp in found) >= 195
    slopes = [ramp.slope for ramp in found if ramp]
    assert np.median(slopes) == pytest.approx(rate, rel=0.2)


@pytest.mark.parametrize("rate", [0.045, 0.36])
def test_a_fast_creep_is_one_trend_and_not_many_steps(rate):
    for seed in range(50):
        ramp = ramp_of(noise(seed, 15) + rate * np.arange(15))
        assert ramp is not None and ramp.last - ramp.start >= 12
        assert ramp.slope == pytest.approx(rate, rel=0.1 if rate > 0.1 else 0.3)


@pytest.mark.parametrize("size", [0.1, 0.3, 1.0])
def test_steps_are_no_trends(size):
    for seed in range(100):
        one, two = np.random.default_rng(seed).integers([3, 12], [9, 18])
        first = size * (np.arange(20) >= one)
        assert ramp_of(noise(seed, 20, 0.005) + first) is None
        assert ramp_of(noise(seed, 20, 0.005) + first + size * (np.arange(20) >= two)) is None


@pytest.mark.parametrize("place", range(20))
def test_a_single_outlier_is_no_trend(place):
    values = noise(place, 20, 0.005)
    values[place] -= 1.0
    assert ramp_of(values) is None


def test_an_outlier_does_not_hide_a_trend():
    for place in range(15):
        values = -0.02 * np.arange(15) + noise(place, 15, 0.005)
        values[place] += 0.5
        assert ramp_of(values) is not None


def test_the_period_of_a_ramp_is_found():
    values = -0.03 * np.clip(np.arange(40) - 12, 0, 15)
    assert ramp_of(values) == Ramp(12, 27, pytest.approx(-0.03))
    assert Ramp(12, 27, -0.03).change == pytest.approx(-0.45)
    np.testing.assert_allclose(Ramp(12, 27, -0.03).line(40), values)


def test_a_long_series_is_searched_in_a_grid():
    values = noise(0, 500, 0.005) - 0.001 * np.clip(np.arange(500) - 200, 0, 200)
    ramp = ramp_of(values)
    assert ramp is not None
    assert (ramp.start, ramp.last) == (pytest.approx(200, abs=20), pytest.approx(400, abs=20))


@given(st.lists(st.floats(-5, 5), max_size=25), st.floats(0.01, 1), st.floats(0.001, 0.5))
def test_trends_are_mirrored_with_their_series(values, limit, spread):
    ramps = find_ramps(values, limit, spread)
    mirrored = find_ramps([-value for value in values], limit, spread)
    assert [ramp._replace(slope=-ramp.slope) for ramp in ramps] == mirrored
    assert all(ramp.last - ramp.start >= LEAST_RUNS - 1 and abs(ramp.change) > limit for ramp in ramps)


def test_the_spread_ignores_a_trend_and_a_step():
    plain = noise(0, 30)
    creep, step = plain + 0.1 * np.arange(30), plain + (np.arange(30) > 12)
    assert spread_of(creep.tolist(), 0.001) == pytest.approx(spread_of(plain.tolist(), 0.001))
    assert spread_of(step.tolist(), 0.001) == pytest.approx(spread_of(plain.tolist(), 0.001), rel=0.2)
    assert spread_of([1.0, 2.0], 0.001) == 0.001
