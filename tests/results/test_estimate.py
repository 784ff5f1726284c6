from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.results.estimate import estimate_seconds, fit_seconds, parse_duration, show_duration

costs = st.lists(st.tuples(st.floats(0.01, 500), st.floats(0.1, 5000)), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("45min", 2700), ("90", 90), ("1.5h", 5400), ("2H 5 m", 7500), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "-3h", "0", "1h-", "inf", "nan", "two hours"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|above 0"):
        parse_duration(text)


@given(st.floats(1, 1e7))
def test_shown_durations_are_right_to_their_second_unit(seconds: float) -> None:
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    words = show_duration(seconds).split()
    shown = sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    smallest = 1 if seconds < 3599 else 60 if seconds < 86399 else 3600
    assert shown <= seconds + 0.5 < shown + smallest + 1


@given(st.floats(0, 100), st.floats(0.01, 10), st.lists(st.floats(0.1, 300), min_size=2, max_size=20, unique=True))
def test_a_straight_line_is_found(fixed: float, per_gmac: float, gmacs: list[float]) -> None:
    if max(gmacs) - min(gmacs) < 1:
        return
    found = fit_seconds([(x, fixed + per_gmac * x) for x in gmacs])
    assert found == pytest.approx((fixed, per_gmac), rel=1e-3, abs=1e-3)


@given(costs)
def test_neither_part_is_negative(measured: list[tuple[float, float]]) -> None:
    fixed, per_gmac = fit_seconds(measured) or (-1, -1)
    assert fixed >= 0
    assert per_gmac >= 0


@given(costs)
def test_where_both_are_positive_it_is_numpys_least_squares(measured: list[tuple[float, float]]) -> None:
    x, y = np.array(measured).T
    fixed, per_gmac = fit_seconds(measured) or (-1, -1)
    if np.ptp(x) > 1 and fixed > 0 and per_gmac > 0:
        slope, intercept = np.polyfit(x, y, 1)
        assert per_gmac == pytest.approx(slope, rel=1e-3, abs=1e-6)
        assert fixed == pytest.approx(intercept, rel=1e-3, abs=1e-3)


def test_unknown_costs_count_as_typical_ones() -> None:
    measured = [(1.0, 12.0), (3.0, 16.0)]
    assert estimate_seconds(measured, [1.0, 3.0]) == pytest.approx(28.0)
    assert estimate_seconds(measured, [1.0, 3.0, None]) == pytest.approx(42.0)
    assert estimate_seconds([], [1.0]) is None
    assert estimate_seconds(measured, []) == 0
