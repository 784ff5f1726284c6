from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval.resampling import class_means, intervals


def test_equals_resampling_one_by_one():
    """Compare with a plain loop that draws classes and pools their queries, with its own draws."""
    rng = np.random.default_rng(5)
    classes = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    values = np.clip(0.5 + 0.3 * rng.standard_normal(30)[classes] + 0.1 * rng.standard_normal(len(classes)), 0, 1)
    members = [values[classes == c] for c in range(30)]
    micro, macro = [], []
    for _ in range(4000):
        drawn = [members[c] for c in rng.integers(0, 30, 30)]
        micro.append(np.concatenate(drawn).mean())
        macro.append(np.mean([group.mean() for group in drawn]))
    found = intervals({"x": values}, classes, resamples=4000, seed=1)
    np.testing.assert_allclose(found["x"], np.quantile(micro, [0.025, 0.975]), atol=0.02)
    np.testing.assert_allclose(found["x_macro"], np.quantile(macro, [0.025, 0.975]), atol=0.02)
    # Had queries been resampled, the interval would be far narrower.
    assert found["x"][1] - found["x"][0] > 1.5 * 4 * values.std() / len(values) ** 0.5


def test_covers_the_mean_of_the_population_of_classes():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = np.repeat(rng.uniform(0, 1, 60), 4)
        low, high = intervals({"x": values}, np.repeat(np.arange(60), 4), resamples=300, seed=seed)["x"]
        covered += low <= 0.5 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_two_classes_span_their_values():
    found = intervals({"x": np.array([0.2, 0.2, 0.6])}, np.array([3, 3, 8]))
    assert found["x"] == pytest.approx((0.2, 0.6))
    assert found["x_macro"] == pytest.approx((0.2, 0.6))


def test_one_class_has_intervals_from_0_to_1():
    assert intervals({"x": np.array([0.2, 0.4])}, np.array([3, 3])) == {"x": (0.0, 1.0), "x_macro": (0.0, 1.0)}


def test_seed_decides():
    rng = np.random.default_rng(0)
    values, classes = rng.uniform(size=200), rng.integers(0, 20, 200)
    assert intervals({"x": values}, classes, seed=3) == intervals({"x": values}, classes, seed=3)
    assert intervals({"x": values}, classes, seed=3) != intervals({"x": values}, classes, seed=4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 60),
)
def test_intervals_hold_the_value_and_stay_within_the_classes(pairs, resamples):
    classes, values = np.array([c for c, _ in pairs]), np.array([v for _, v in pairs])
    found = intervals({"x": values}, classes, resamples=resamples)
    means, sizes = class_means(values[:, None], classes)
    for name, point in (("x", values.mean()), ("x_macro", means.mean())):
        low, high = found[name]
        assert low <= point <= high
        if len(sizes) > 1:
            assert means.min() - 1e-12 <= low
            assert high <= means.max() + 1e-12


def test_many_classes_are_drawn_in_pieces(monkeypatch):
    from embedcore.retrieval import resampling

    rng = np.random.default_rng(0)
    values, classes = rng.uniform(size=300), np.arange(300) % 100
    whole = intervals({"x": values}, classes, resamples=50)
    monkeypatch.setattr(resampling, "_DRAWN", 700)
    assert intervals({"x": values}, classes, resamples=50)["x"] == pytest.approx(whole["x"], abs=1e-12)
