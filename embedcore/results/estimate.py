"""How long cases take, learned from those that have run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from embedcore.results.result import Result

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
    ('1 h 30 min', '42 s', '2 d 7 h')
    """
    whole = round(seconds)
    for big, small, size, per in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            rest = whole % size // per
            return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def show_range(low: float, high: float) -> str:
    """A time that is known roughly, in the unit of its upper end.

    >>> show_range(700, 900), show_range(44, 46), show_range(2400, 9000), show_range(58, 61)
    ('12 to 15 min', 'about 45 s', '0.7 to 2.5 h', 'about 1 min')
    """
    unit, size = next(((u, s) for u, s in (("d", 86400), ("h", 3600), ("min", 60)) if high >= 0.99 * s), ("s", 1))

    def shown(seconds: float) -> str:
        if unit == "s":  # no clock is that good
            return str(round(seconds / 5) * 5 or round(seconds))
        number = seconds / size
        return f"{number:.0f}" if unit == "min" or number > 9.9 else f"{number:.1f}".removesuffix(".0")

    ends = shown(low), shown(high)
    return f"about {ends[1]} {unit}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} {unit}"


# Of the quickest case's time what does not depend on the model: half, for want of a better guess.
_FIXED = 0.5
# Speeds are learned from the costliest third of the cases, at least so many: the ones to come are costlier still.
_FEWEST, _SHARE = 8, 3
# Before anything is known, cases are taken to differ from a common speed by so much (standard deviation of the log),
# which counts as so many cases.
_PRIOR_SD, _PRIOR_CASES = 0.5, 3
# Small models make less of a machine: below so many GMACs the speed falls by this power of the size. Without it
# estimates were a fifth too high in three recorded sweeps, which begin with the cheapest.
_LARGE, _LOSS = 10.0, 0.15
# How much that is not so: this much (log) for each e-fold of the work.
_TREND = 0.08
_WIDTH = 1.15
"""Half the width of a range in standard deviations: about three ranges in four hold what comes true."""


class Pace(NamedTuple):
    """Seconds of a case = ``fixed`` + ``per_work`` * its work, and how well that is known."""

    fixed: float
    per_work: float
    scatter: float
    """Standard deviation of the log of a case's seconds around it."""
    cases: float
    """How many equally long cases it was learned from."""
    work: float
    """The typical work of those, weighted by itself."""


def _work(gmacs: float) -> float:
    """What a case costs, in GMACs at the speed of a large model."""
    return gmacs * max(1.0, (_LARGE / gmacs) ** _LOSS) if gmacs else 0.0


def fit_pace(measured: Iterable[tuple[float, float]]) -> Pace | None:
    """The pace of cases of measured (gmacs, seconds), above 0 both; None without one.

    Not by least squares: in a sweep that begins with the cheapest the slope of the first few is chance, and the hours
    of the costly ones to come hang on it. The total of the costliest cases is a ratio, and steady.

    >>> pace = fit_pace([(10.0, 12.0), (20.0, 14.0), (40.0, 18.0)])
    >>> round(pace.fixed, 2), round(pace.per_work, 2)
    (6.0, 0.37)
    """
    points = sorted((_work(gmacs), seconds) for gmacs, seconds in measured)
    if not points:
        return None
    fixed = _FIXED * min(seconds for _, seconds in points)
    points = points[-max(_FEWEST, len(points) // _SHARE) :]
    works, seconds = [work for work, _ in points], [seconds for _, seconds in points]
    per_work = (sum(seconds) - fixed * len(points)) / sum(works)
    logs = (math.log(took / (fixed + per_work * work)) for work, took in points)
    squares = sum(log**2 for log in logs) + _PRIOR_CASES * _PRIOR_SD**2
    scatter = math.sqrt(squares / (len(points) + _PRIOR_CASES))
    return Pace(fixed, per_work, scatter, _equal_parts(seconds), sum(work**2 for work in works) / sum(works))


def measured_costs(results: Iterable[Result], cost_of: Callable[[str], float | None]) -> list[tuple[float, float]]:
    """(GMACs, seconds) of the results that tell how long a measurement takes; refused or failed ones, and those without
    a forward pass, do not."""
    timed = [(cost_of(result.model), result.measured_s) for result in results if result.ok and result.durations]
    return [(cost, seconds) for cost, seconds in timed if cost and seconds]


def costs_left(
    left: Iterable[tuple[str, float | None]], results: Sequence[Result], to_fetch: Collection[str]
) -> list[float | None]:
    """The costs of those cases that are `left`, pairs of model and cost, that will be measured.

    While the hub cannot be reached, cases whose weights are `to_fetch` are skipped at once. Whether it can be, the last
    result of one of them tells.
    """
    lost = next((result.unreachable for result in reversed(results) if result.model in to_fetch), False)
    return [cost for model, cost in left if not (lost and model in to_fetch)]


def estimate_seconds(measured: Iterable[tuple[float, float]], gmacs: Sequence[float | None]) -> float | None:
    """Seconds that cases of these costs will take together; None before any case was measured.

    A case of unknown cost counts as the mean of the known ones.
    """
    pace = fit_pace(measured)
    return None if pace is None else sum(_seconds(pace, gmacs))


def estimate_range(
    measured: Iterable[tuple[float, float]], gmacs: Sequence[float | None]
) -> tuple[float, float] | None:
    """The least and the most seconds that these cases are expected to take: see `estimate_seconds`.

    As wide as the measured cases differ from a common pace, and wider where those to come are of another size.
    """
    pace = fit_pace(measured)
    if pace is None:
        return None
    parts = _seconds(pace, gmacs)
    if not parts:
        return 0.0, 0.0
    works = [_work(cost) for cost in gmacs if cost] or [pace.work]
    trend = _TREND * math.log(sum(work**2 for work in works) / sum(works) / pace.work)
    sd = math.sqrt(pace.scatter**2 * (1 / pace.cases + 1 / _equal_parts(parts)) + trend**2)
    return sum(parts) * math.exp(-_WIDTH * sd), sum(parts) * math.exp(_WIDTH * sd)


def _seconds(pace: Pace, gmacs: Sequence[float | None]) -> list[float]:
    known = [_work(cost) for cost in gmacs if cost is not None]
    typical = sum(known) / len(known) if known else pace.work
    return [pace.fixed + pace.per_work * (typical if cost is None else _work(cost)) for cost in gmacs]


def _equal_parts(seconds: Sequence[float]) -> float:
    """As how many equal parts these vary when summed (Kish's effective size)."""
    return sum(seconds) ** 2 / sum(part**2 for part in seconds)
