"""Time estimates for the cases left, learned from those measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from embedcore.results.result import Result

_FIXED = 0.5
"""Share of the quickest case's time that does not depend on the model."""
_FEWEST, _SHARE = 8, 3
"""The pace is learned from the costliest third of the cases, at least 8, because the remaining ones cost even more."""
_PRIOR_SD, _PRIOR_CASES = 0.5, 3
"""Scatter (standard deviation of the log) assumed at first; it counts as 3 cases."""
_LARGE, _LOSS = 10.0, 0.15
"""Below 10 GMACs the speed falls by this power of the size: small models use a machine less well."""
_WIDTH = 1.4
"""Half the width of a range in standard deviations: about three ranges in four contain the actual duration."""
STARTING_S = 5.0
"""Seconds of a process beside its images and rounds: weights, warm-up, pinned rounds."""
_TIMED_IMAGES = 200
"""Images of the timing rounds of a process on the CPU."""
_USED = 0.8
"""Speed of networks over that of single operations: 0.5 to 1.5 for four networks on one thread of an AMD EPYC."""
_ROUGHLY = 2.5
"""Half the width, as a factor, of a range that is derived from the speed of single operations."""


class Pace(NamedTuple):
    """Seconds of a case = ``fixed`` + ``per_work`` * its work."""

    fixed: float
    per_work: float
    scatter: float
    """Standard deviation of the log of a case's seconds around that."""
    cases: int
    """Number of cases it was learned from."""
    work: float
    """Their mean work, weighted by itself."""


def _work(gmacs: float) -> float:
    """Return the cost of a case: its GMACs, as if at the speed of a large model."""
    return gmacs * max(1.0, (_LARGE / gmacs) ** _LOSS) if gmacs else 0.0


def fit_pace(measured: Iterable[tuple[float, float]]) -> Pace | None:
    """Return the pace of measured (GMACs, seconds), all above 0; None without any.

    A ratio of totals, not least squares: a sweep begins with the cheapest cases, whose slope is mostly chance.

    >>> pace = fit_pace([(10.0, 12.0), (20.0, 14.0), (40.0, 18.0)])
    >>> round(pace.fixed, 2), round(pace.per_work, 2)
    (6.0, 0.37)
    """
    points = sorted((_work(gmacs), seconds) for gmacs, seconds in measured)
    if not points:
        return None
    fixed = _FIXED * min(seconds for _, seconds in points)
    points = points[-max(_FEWEST, len(points) // _SHARE) :]
    total_work = sum(work for work, _ in points)
    per_work = (sum(seconds for _, seconds in points) - fixed * len(points)) / total_work
    squares = sum(math.log(seconds / (fixed + per_work * work)) ** 2 for work, seconds in points)
    scatter = math.sqrt((squares + _PRIOR_CASES * _PRIOR_SD**2) / (len(points) + _PRIOR_CASES))
    return Pace(fixed, per_work, scatter, len(points), sum(work**2 for work, _ in points) / total_work)


def measured_costs(results: Iterable[Result], cost_of: Callable[[str], float | None]) -> list[tuple[float, float]]:
    """Return (GMACs, seconds) of the measured results that had a forward pass."""
    timed = [(cost_of(result.model), result.measured_s) for result in results if result.ok and result.durations]
    return [(cost, seconds) for cost, seconds in timed if cost and seconds]


def costs_left(
    left: Iterable[tuple[str, float | None]], results: Sequence[Result], to_fetch: Collection[str]
) -> list[float | None]:
    """Return the costs of the cases `left` (model, cost) that will be measured.

    While the hub cannot be reached, cases whose weights are `to_fetch` are skipped at once; the last result of one of
    them tells whether it can.
    """
    lost = next((result.unreachable for result in reversed(results) if result.model in to_fetch), False)
    return [cost for model, cost in left if not (lost and model in to_fetch)]


def estimate_seconds(measured: Iterable[tuple[float, float]], gmacs: Sequence[float | None]) -> float | None:
    """Return the total seconds of cases with these costs; None before any case was measured.

    A case of unknown cost counts as the mean of the others.
    """
    pace = fit_pace(measured)
    return None if pace is None else sum(_seconds(pace, gmacs))


def estimate_range(
    measured: Iterable[tuple[float, float]], gmacs: Sequence[float | None]
) -> tuple[float, float] | None:
    """Return the least and the most seconds that these cases are expected to take: see `estimate_seconds`."""
    pace = fit_pace(measured)
    if pace is None:
        return None
    parts = _seconds(pace, gmacs)
    if not parts:
        return 0.0, 0.0
    # The costliest of the cases dominate: they count as Kish's effective sample size.
    effective = sum(parts) ** 2 / sum(part**2 for part in parts)
    factor = math.exp(_WIDTH * pace.scatter * math.sqrt(1 / pace.cases + 1 / effective))
    return sum(parts) / factor, sum(parts) * factor


def rough_range(gmacs_per_s: float, gmacs: Sequence[float | None], images: int, processes: int) -> tuple[float, float]:
    """Return the least and the most seconds of cases on a CPU on which none was measured, by its speed.

    ``gmacs_per_s``: of single operations, see `embed.calibration`; ``processes``: in how many each case is timed.
    """
    pace = Pace(processes * STARTING_S, (images + processes * _TIMED_IMAGES) / (_USED * gmacs_per_s), 0.0, 0, 0.0)
    total = sum(_seconds(pace, gmacs))
    return total / _ROUGHLY, total * _ROUGHLY


def _seconds(pace: Pace, gmacs: Sequence[float | None]) -> list[float]:
    known = [_work(cost) for cost in gmacs if cost is not None]
    typical = sum(known) / len(known) if known else pace.work
    return [pace.fixed + pace.per_work * (typical if cost is None else _work(cost)) for cost in gmacs]
