from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.durations import parse_duration, show_duration, show_range


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("45min", 2700), ("90", 90), ("1.5h", 5400), ("2H 5 m", 7500), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "-3h", "0", "1h-", "inf", "nan", "two hours"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|above 0"):
        parse_duration(text)


@given(st.floats(1, 1e7))
def test_shown_durations_are_right_to_their_second_unit(seconds: float) -> None:
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    words = show_duration(seconds).split()
    shown = sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    smallest = 1 if seconds < 3599 else 60 if seconds < 86399 else 3600
    assert shown <= seconds + 0.5 < shown + smallest + 1


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0, 0, "about 0 s"),
        (2, 3, "2 to 5 s"),
        (12, 31, "10 to 30 s"),
        (50, 100, "1 to 2 min"),
        (3000, 3500, "50 to 58 min"),
        (4000, 7200, "1.1 to 2 h"),
        (40000, 80000, "11 to 22 h"),
        (86400, 400000, "1 to 4.6 d"),
    ],
)
def test_ranges(low: float, high: float, shown: str) -> None:
    assert show_range(low, high) == shown
