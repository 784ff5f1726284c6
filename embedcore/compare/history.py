"""The history of saved runs in order of time: series of each model and family, and the steps and trends in them.

Steps of speed and memory are found by `embedcore.compare.step`, trends by `embedcore.compare.trend`; the steps are then
those of the series without its trends.

A step of accuracy is a change between neighbours that exceeds the limit and is significant by the paired test of
`compare`. A trend of accuracy exceeds the limit, and the same test of its first and last run is significant. A step of
drift exceeds the limit and what rounding explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from embedcore.compare.causes import causes_of, memory_noise, rounding
from embedcore.compare.limits import Limits
from embedcore.compare.pairs import Pair, machines_named
from embedcore.compare.scores import acc_test
from embedcore.compare.series import ALL, WHATS, Chain, Point, Series, chains_of, family_series
from embedcore.compare.statistics import NOTHING, SIGNIFICANT, Flips, false_discovery
from embedcore.compare.step import WINDOW, find_steps
from embedcore.compare.trend import find_ramps, lines, spread_of
from embedcore.errors import UsageError
from embedcore.results.run import Run

NOISE = 0.02
"""Standard deviation of the log of a speed ratio between two equal sessions, unless `ab --aa` has measured it."""

_LEAST_ACC_SPREAD = 1e-3


def change_of(what: str, base: float, new: float) -> float:
    """Return ratio - 1 of speed and memory, the difference of acc, the drift itself.

    >>> change_of("images_per_s", 100, 80), change_of("drift", 0, 0.5)
    (-0.19999999999999996, 0.5)
    """
    if what == "acc":
        return new - base
    return new if what == "drift" else new / base - 1


@dataclass(frozen=True)
class SeriesChange:
    """A change of a series between two runs."""

    series: Series
    before: int
    run: int
    """Indices of the two runs: the last before a step and the first after, or the first and the last of a trend."""
    base: float
    new: float
    """Levels before and after a step, or values of the trend's line in these runs."""
    causes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def change(self) -> float:
        return change_of(self.series.what, self.base, self.new)

    @property
    def worse(self) -> bool:
        return self.change < 0 if self.series.what in ("acc", "images_per_s") else self.change > 0


@dataclass(frozen=True)
class Step(SeriesChange):
    """A lasting change of a series, or a change in its newest run."""

    runs_after: int
    """Number of runs at the new level; 1 is not confirmed by another run."""

    @property
    def weak(self) -> bool:
        """Whether it rests on one run that was timed in one process."""
        return self.runs_after == 1 and self.series.what == "images_per_s" and self.run in self.series.weak


@dataclass(frozen=True)
class Trend(SeriesChange):
    """A change of a series at a steady rate."""

    runs: int
    """Number of runs of the series from `before` to `run`."""

    @property
    def rate(self) -> float:
        """Change from one run to the next, in the unit of `change`."""
        if self.series.what == "acc":
            return self.change / (self.runs - 1)
        return math.expm1(math.log(self.new / self.base) / (self.runs - 1))


@dataclass(frozen=True)
class History:
    """Runs, oldest first, with their series, steps and trends."""

    runs: tuple[Run, ...]
    series: tuple[Series, ...]
    steps: tuple[Step, ...]
    """Newest first; in one run by quantity, families before models, largest change first."""
    trends: tuple[Trend, ...] = ()
    """In the same order, by their last run."""

    def facts(self, step: Step | Trend) -> list[str]:
        """Return a phrase for each commit, version and machine that changed in the run of a step, or from the first to
        the last run of a trend."""
        runs = self.runs[step.before], self.runs[step.run]
        sides = [{**run.versions, "commit": str(run.commit)[:10]} for run in runs]
        keys = ("commit", "timm", "torch", "cuda", "cudnn", "driver", "gpu", "processor", "python")
        pairs = ((key, sides[0].get(key), sides[1].get(key)) for key in keys)
        return [f"{key} {old} → {now}" for key, old, now in pairs if old != now]


def history(runs: Iterable[Run], limits: Limits) -> History:
    """Return the history of saved runs.

    Raises UsageError for a run without a date, and for damaged verdicts or sketches.
    """
    ordered = machines_named(_in_order(runs))
    noise = max((run.noise for run in ordered if run.noise is not None), default=NOISE)
    series: list[Series] = []
    found: list[Step | Trend] = []
    tested: dict[int, list[tuple[Step | Trend | None, Flips]]] = {}  # by run, since its models are tested together
    for chain in chains_of(ordered):
        for one in chain.series(ordered):
            series.append(one)
            limit = limits.of(one.name, one.family).get(one.what, math.inf)
            if one.what == "acc":
                for run, change, test in _accuracy_changes(one, chain, limit, ordered):
                    tested.setdefault(run, []).append((change, test))
            elif one.what == "drift":
                found += [_with_causes(step, chain, ordered) for step in _drift_steps(one, chain, limit)]
            else:
                found += [_with_causes(change, chain, ordered) for change in _level_changes(one, limit, noise)]
    for candidates in tested.values():
        adjusted = false_discovery([test.p for _, test in candidates], [test.least for _, test in candidates])
        found += [one for (one, _), p in zip(candidates, adjusted, strict=True) if one and p <= SIGNIFICANT]
    families = list(family_series(series))
    for one in families:
        if one.what in ("images_per_s", "memory"):
            limit = limits.of(one.name, one.family).get(one.what, math.inf)
            changes = _level_changes(one, limit, noise)
            found += (change for change in changes if one.name != ALL or isinstance(change, Trend))
    trends = [one for one in found if isinstance(one, Trend)]
    return History(
        tuple(ordered),
        tuple(sorted([*series, *families], key=_place)),
        tuple(sorted((one for one in found if isinstance(one, Step) and not _explained(one, trends)), key=_rank)),
        tuple(sorted(trends, key=_rank)),
    )


def _place(series: Series) -> tuple[object, ...]:
    return series.name != ALL, not series.of_family, series.family, series.name, WHATS.index(series.what)


def _rank(one: Step | Trend) -> tuple[object, ...]:
    series = one.series
    return -one.run, WHATS.index(series.what), not series.of_family, series.name != ALL, -abs(one.change), series.name


def _explained(step: Step, trends: Sequence[Trend]) -> bool:
    """Whether a step of acc is a part of a trend: at most twice its rate."""
    return step.series.what == "acc" and any(
        trend.series is step.series
        and trend.before <= step.before
        and step.run <= trend.run
        and 0 < step.change / trend.rate <= 2
        for trend in trends
    )


def _in_order(runs: Iterable[Run]) -> list[Run]:
    """Return the runs, oldest first; a run saved in two files counts once."""
    ordered: list[Run] = []
    for run in runs:
        if run.datetime is None:
            raise UsageError(f"{run.path} has no datetime, so it cannot be placed in a history")
        if not any(run.datetime == other.datetime and run.results == other.results for other in ordered):
            ordered.append(run)
    return sorted(ordered, key=lambda run: (run.datetime or "", str(run.path)))


def _level_changes(series: Series, limit: float, noise: float) -> Iterator[Step | Trend]:
    """Yield the trends and steps of speed or memory, found on the log scale."""
    # A speed that falls by 5 % changes its logarithm by more than a growth of 5 %.
    least = -math.log1p(-limit) if series.what == "images_per_s" and limit < 1 else math.log1p(limit)
    points, logs = series.points, np.log([point.value for point in series.points])
    if len(logs) < 2 or max(logs) - min(logs) <= least:
        return
    spread = spread_of(logs.tolist(), noise / math.sqrt(2))  # the noise is that of a ratio of two runs
    ramps = find_ramps(logs.tolist(), least, spread)
    line = lines(ramps, len(logs))
    rest = (logs - line).tolist()
    for start, last, slope in ramps:
        base = math.exp(median(rest[start : last + 1]) + line[start])
        new = base * math.exp(slope * (last - start))
        if _counts(series, base, new):
            yield Trend(series, points[start].run, points[last].run, base, new, last - start + 1)
    edges = [0, *find_steps(rest, least, spread), len(rest)]
    for start, place, end in zip(edges, edges[1:], edges[2:], strict=False):
        base = math.exp(median(rest[max(start, place - WINDOW) : place]) + line[place - 1])
        new = math.exp(median(rest[place : min(end, place + WINDOW)]) + line[place - 1])
        if _counts(series, base, new):
            yield Step(series, points[place - 1].run, points[place].run, base, new, end - place)


def _counts(series: Series, base: float, new: float) -> bool:
    return series.what != "memory" or abs(new - base) > memory_noise(base, new, series.device)


def _accuracy_changes(
    series: Series, chain: Chain, limit: float, runs: Sequence[Run]
) -> Iterator[tuple[int, Step | Trend | None, Flips]]:
    """Yield run, step and test for each pair of neighbours, without a step for a change within the limit; then those of
    the trends."""
    for at, ((before, old), (run, new)) in enumerate(zip(chain.links, chain.links[1:], strict=False), start=1):
        base, now = series.points[at - 1].value, series.points[at].value
        if abs(now - base) <= limit or old.verdicts is None or new.verdicts is None:
            yield run, None, NOTHING
            continue
        step = Step(series, before, run, base, now, _runs_within(series.points[at:], now, limit))
        yield run, _with_causes(step, chain, runs), acc_test(Pair(old, new), runs[before], runs[run])
    if math.isinf(limit):
        return
    values = [point.value for point in series.points]
    for start, last, _ in find_ramps(values, limit, spread_of(values, max(limit / 2, _LEAST_ACC_SPREAD))):
        (before, old), (run, new) = chain.links[start], chain.links[last]
        if old.verdicts is not None and new.verdicts is not None:
            trend = Trend(series, before, run, values[start], values[last], last - start + 1)
            yield run, _with_causes(trend, chain, runs), acc_test(Pair(old, new), runs[before], runs[run])


def _drift_steps(series: Series, chain: Chain, limit: float) -> Iterator[Step]:
    results = dict(chain.links)
    before = {run: previous for (previous, _), (run, _) in zip(chain.links, chain.links[1:], strict=False)}
    for at, (run, drift) in enumerate(series.points):
        if drift > max(limit, rounding(results[run].precision)):
            after = 1 + _runs_within(series.points[at + 1 :], 0.0, limit)
            yield Step(series, before[run], run, 0.0, drift, after)


def _runs_within(points: Sequence[Point], level: float, limit: float) -> int:
    """Return the number of runs before the first that differs from `level` by more than `limit`."""
    away = (at for at, point in enumerate(points) if abs(point.value - level) > limit)
    return next(away, len(points))


def _with_causes(change: Step | Trend, chain: Chain, runs: Sequence[Run]) -> Step | Trend:
    results = dict(chain.links)
    pair = Pair(results[change.before], results[change.run])
    return replace(change, causes=causes_of(pair, runs[change.before], runs[change.run]))
