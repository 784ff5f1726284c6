"""Durations as people write and read them."""

from __future__ import annotations

import re

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``2h``, ``1h30m``, ``45min``, ``90s`` or ``90``.

    Raises ValueError for anything else, and for empty text.

    >>> parse_duration("1h30m")
    5400.0
    """
    compact = text.strip().lower()
    if compact and not _PART.sub("", compact).strip():
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))
    else:
        try:
            seconds = float(compact)
        except ValueError:
            raise ValueError("must be a duration such as 2h, 1h30m or 90s") from None
    if not 0 < seconds < float("inf"):
        raise ValueError("must be above 0")
    return seconds


def show_duration(seconds: float) -> str:
    """Return a readable duration with at most two units.

    >>> show_duration(5400), show_duration(42.3), show_duration(200000)
    ('1 h 30 min', '42 s', '2 d 7 h')
    """
    whole = round(seconds)
    for big, small, size, per in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            rest = whole % size // per
            return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def show_range(low: float, high: float) -> str:
    """Return a readable range of durations, in the unit of its upper end.

    >>> show_range(700, 900), show_range(44, 46), show_range(2400, 9000), show_range(58, 61)
    ('12 to 15 min', 'about 45 s', '0.7 to 2.5 h', 'about 1 min')
    """
    unit, size = next(((u, s) for u, s in (("d", 86400), ("h", 3600), ("min", 60)) if high >= 0.99 * s), ("s", 1))

    def shown(seconds: float) -> str:
        if unit == "s":  # estimates are not that precise
            return str(round(seconds / 5) * 5 or round(seconds))
        number = seconds / size
        return f"{number:.0f}" if unit == "min" or number > 9.9 else f"{number:.1f}".removesuffix(".0")

    ends = shown(low), shown(high)
    return f"about {ends[1]} {unit}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} {unit}"
