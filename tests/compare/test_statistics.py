from __future__ import annotations

import math
import operator
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from embedcore.compare import statistics
from embedcore.retrieval.resampling import intervals


def brute_force(differences):
    """The two-sided p-value by enumeration of all signs, and the smallest one."""
    sums = [abs(sum(map(operator.mul, signs, differences))) for signs in product((1, -1), repeat=len(differences))]
    return tuple(np.mean([each >= seen for each in sums]) for seen in (abs(sum(differences)), max(sums)))


@given(st.lists(st.integers(-40, 40), max_size=10))
def test_sign_flips_equal_the_enumeration_of_all_signs(differences):
    flips = statistics.sign_flips(np.array(differences, dtype=np.int64))
    p, least = brute_force([each for each in differences if each])
    assert flips.p == pytest.approx(p, rel=1e-9) and flips.least == pytest.approx(least)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_sign_flips_of_single_queries_are_mcnemars_test(worse, better):
    p = statistics.sign_flips(np.repeat([-1, 1], [worse, better])).p
    expected = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert p == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("units", "largest"), [(300, 5), (3000, 2), (2000, 60), (50, 5000)])
def test_sign_flips_of_many_units_equal_a_convolution(units, largest):
    rng = np.random.default_rng(units)
    for share in (0.5, 0.55, 0.6):
        differences = rng.integers(1, largest + 1, units) * np.where(rng.random(units) < share, -1, 1)
        total, seen = np.abs(differences).sum(), abs(differences.sum())
        chances = np.zeros(total + 1)  # of the sum of one sign
        chances[0] = 1
        for size in np.abs(differences):
            chances = (chances + np.concatenate([np.zeros(size), chances[:-size]])) / 2
        expected = min(1.0, 2 * chances[: (total - seen) // 2 + 1].sum())
        assert statistics.sign_flips(differences).p == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_sign_flip_p_value_is_never_below_the_smallest():
    assert statistics.sign_flips(np.full(200, -3)) == (2.0**-199, 2.0**-199)
    assert statistics.sign_flips(np.full(2000, 1)).p < 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_false_discovery_equals_scipy(p):
    assert statistics.false_discovery(p) == pytest.approx(stats.false_discovery_control(p))


def test_tests_that_cannot_reach_a_p_value_do_not_count():
    p, least = np.ones(1857), np.ones(1857)
    p[:3] = least[:3] = 2.0**-13
    assert statistics.false_discovery(p, least)[:3] == pytest.approx(2.0**-13)
    assert statistics.false_discovery(p)[0] > 0.05
    least[3:] = 2.0**-12  # a little too many
    assert statistics.false_discovery(p, least)[:3] == pytest.approx(2.0**-13)
    least[3:] = 2.0**-14
    assert statistics.false_discovery(p, least) == pytest.approx(statistics.false_discovery(p))


def test_discrete_tests_without_a_change_seldom_reject():
    """At most 5 % of families have a rejection: models with few and with many changed classes."""
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(400):
        tests = [statistics.sign_flips(rng.choice([-2, -1, 1, 2], rng.integers(0, 16))) for _ in range(40)]
        rejected += (statistics.false_discovery(*zip(*tests, strict=True)) <= 0.05).any()
    assert rejected / 400 < 0.06


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


def test_one_class_gives_no_interval():
    paired = statistics.paired_by_class(np.array([[5.0]]), np.array([10]))
    assert paired.difference[0] == 0.5 and paired.low[0] == -math.inf


def test_drift_is_relative_to_the_length():
    rng = np.random.default_rng(0)
    sketch = rng.standard_normal((8, 64)).astype(np.float32)
    assert statistics.embedding_drift(sketch, sketch) == 0
    assert statistics.embedding_drift(sketch, sketch * np.float32(1.01)) == pytest.approx(0.01, rel=1e-3)
    assert statistics.embedding_drift(np.zeros((1, 64)), np.ones((1, 64))) == math.inf
