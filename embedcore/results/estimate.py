"""How long cases take, learned from those that have run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``2h``, ``1h30m``, ``45min``, ``90s`` or ``90``.

    Raises ValueError for anything else, and for none at all.

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
            raise ValueError("give a duration such as 2h, 1h30m or 90s") from None
    if not 0 < seconds < float("inf"):
        raise ValueError("must be above 0")
    return seconds


def show_duration(seconds: float) -> str:
    """A duration for people, with two units at most.

    >>> show_duration(5400), show_duration(42.3), show_duration(200000)
    ('1 h 30 min', '42 s', '2 d 8 h')
    """
    whole = round(seconds)
    for big, small, size, per in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            rest = whole % size // per
            return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def fit_seconds(measured: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    """(fixed, per_gmac) of seconds = fixed + per_gmac * gmacs, by least squares over measured (gmacs, seconds).

    Both are kept from being negative: with few cases of like size a slope means nothing, and then the mean time is
    taken as fixed. None without a measured case.

    >>> fit_seconds([(1.0, 12.0), (2.0, 14.0), (4.0, 18.0)])
    (10.0, 2.0)
    """
    points = list(measured)
    if not points:
        return None
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread > 0 else 0.0
    if slope <= 0:
        return mean_y, 0.0
    fixed = mean_y - slope * mean_x
    if fixed >= 0:
        return fixed, slope
    return 0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)


def estimate_seconds(measured: Iterable[tuple[float, float]], gmacs: Sequence[float | None]) -> float | None:
    """Seconds that cases of these costs will take together; None before any case was measured.

    A case of unknown cost counts as the mean of the known ones.
    """
    fitted = fit_seconds(measured)
    if fitted is None:
        return None
    known = [cost for cost in gmacs if cost is not None]
    typical = sum(known) / len(known) if known else 0.0
    fixed, per_gmac = fitted
    return sum(fixed + per_gmac * (typical if cost is None else cost) for cost in gmacs)
