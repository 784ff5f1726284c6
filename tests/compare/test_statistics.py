from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from embedcore.compare import statistics
from embedcore.retrieval.resampling import intervals


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_exact_binomial_test(worse, better):
    expected = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert statistics.mcnemar([worse], [better])[0] == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_false_discovery_equals_scipy(p):
    assert statistics.false_discovery(p) == pytest.approx(stats.false_discovery_control(p))


def test_false_discovery_of_no_p_values():
    assert statistics.false_discovery([]).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_paired_intervals_equal_a_bootstrap_over_classes(seed):
    rng = np.random.default_rng(seed)
    classes = np.sort(rng.integers(0, 300, 3000))
    difference = rng.choice([-1.0, 0.0, 1.0], 3000, p=[0.1, 0.85, 0.05]) + rng.normal(0, 0.1, 300)[classes]
    expected = intervals({"d": difference}, classes, resamples=4000)["d"]
    sizes = np.bincount(classes, minlength=300)
    paired = statistics.paired_by_class(np.bincount(classes, difference, minlength=300)[None], sizes)
    assert paired.difference[0] == pytest.approx(difference.mean())
    width = expected[1] - expected[0]
    assert (paired.low[0], paired.high[0]) == pytest.approx(expected, abs=0.1 * width)


def test_paired_p_values_are_uniform_without_a_change():
    rng = np.random.default_rng(0)
    sums = rng.normal(0, 1, (2000, 50)).astype(np.float32)
    p = statistics.paired_by_class(sums, np.full(50, 10)).p
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_one_class_gives_no_significance():
    paired = statistics.paired_by_class(np.array([[5.0]]), np.array([10]))
    assert paired.p[0] == 1 and paired.difference[0] == 0.5 and paired.low[0] == -math.inf


@given(st.floats(0.2, 5), st.integers(1, 64), st.integers(1, 64))
def test_swapping_the_sides_inverts_the_speed_ratio(factor, small, large):
    rng = np.random.default_rng(0)
    base, new = rng.normal(1, 0.02, 10) * small, rng.normal(factor, 0.02, 10) * large
    there = statistics.speed_ratio(base, new, 0.02, (small, large))
    back = statistics.speed_ratio(new, base, 0.02, (large, small))
    assert there.ratio == pytest.approx(1 / back.ratio) and there.low == pytest.approx(1 / back.high)
    assert there.p == pytest.approx(back.p) and there.low <= there.ratio <= there.high


def test_the_speed_interval_has_its_coverage():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(500):
        process = rng.normal(0, 0.02 / math.sqrt(2), 2)
        rounds = [np.exp(rng.normal(p, 0.01, 10)) for p in process]
        ratio = statistics.speed_ratio(rounds[0], rounds[1], 0.02)
        inside += ratio.low <= 1 <= ratio.high
    assert inside / 500 > 0.93


def test_drift_is_relative_to_the_length():
    rng = np.random.default_rng(0)
    sketch = rng.standard_normal((8, 64)).astype(np.float32)
    assert statistics.embedding_drift(sketch, sketch) == 0
    assert statistics.embedding_drift(sketch, sketch * np.float32(1.01)) == pytest.approx(0.01, rel=1e-3)
    assert statistics.embedding_drift(np.zeros((1, 64)), np.ones((1, 64))) == math.inf
