"""How long cases take, learned from those that have run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from embedcore.results.result import Result

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
