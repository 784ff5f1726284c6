"""The history of saved runs in order of time: series of each model and family, and the steps in them.

A step of speed or memory lies between run i - 1 and run i of a series if the medians of up to `WINDOW` runs on either
side differ by more than the limit and by more than `Z` standard errors. If a side has only two runs, the one nearer to
the other side counts, so that a single outlier in the middle of a series makes no step. (A change-point library reports
two steps there, and none in the newest run.) Among such places the one with the largest jump, or a neighbour that fits
both levels better, is taken, and its two sides are searched recursively. A step in the newest run rests on that run
alone.

A step of accuracy is a change between neighbours that exceeds the limit and is significant by the paired test of
`compare`. A step of drift exceeds the limit and what rounding explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from embedcore.compare.causes import causes_of, rounding
from embedcore.compare.comparison import LEAST_MEMORY_MB, NOISE
from embedcore.compare.limits import Limits
from embedcore.compare.pairs import Pair, verdicts_of
from embedcore.compare.series import WHATS, Chain, Point, Series, chains_of, family_series
from embedcore.compare.statistics import SIGNIFICANT, false_discovery, mcnemar, robust_sd
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run

WINDOW = 3
"""Number of runs on either side of a step that are compared."""
Z = 4.0
"""A false step has a probability of about 1 in 10,000 per run and series; a history has many of both."""

_LEAST_RUNS = 6  # needed to estimate the noise of a series from itself


@dataclass(frozen=True)
class Step:
    """A lasting change of a series, or a change in its newest run."""

    series: Series
    before: int
    run: int
    """Indices of the last run before it and the first one after."""
    base: float
    new: float
    """Levels before and after."""
    runs_after: int
    """Number of runs at the new level; 1 is not confirmed by another run."""
    causes: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Ratio - 1 of speed and memory, difference of acc, the drift itself."""
        if self.series.what == "acc":
            return self.new - self.base
        return self.new if self.series.what == "drift" else self.new / self.base - 1

    @property
    def worse(self) -> bool:
        return self.change < 0 if self.series.what in ("acc", "images_per_s") else self.change > 0


@dataclass(frozen=True)
class History:
    """Runs, oldest first, with their series and steps."""

    runs: tuple[Run, ...]
    series: tuple[Series, ...]
    steps: tuple[Step, ...]
    """Newest first; in a run families first, largest change first."""

    def facts(self, step: Step) -> list[str]:
        """Return a phrase for each commit, version and machine that changed in the run of a step."""
        runs = self.runs[step.before], self.runs[step.run]
        sides = [{**run.versions, "commit": str(run.commit)[:10]} for run in runs]
        keys = ("commit", "timm", "torch", "cuda", "cudnn", "driver", "gpu", "processor", "python")
        pairs = ((key, sides[0].get(key), sides[1].get(key)) for key in keys)
        return [f"{key} {old} → {now}" for key, old, now in pairs if old != now]


def history(runs: Iterable[Run], limits: Limits) -> History:
    """Return the history of saved runs.

    Raises UsageError for a run without a date, and for damaged verdicts or sketches.
    """
    ordered = _in_order(runs)
    noise = max((run.noise for run in ordered if run.noise is not None), default=NOISE)
    series: list[Series] = []
    steps: list[Step] = []
    tested: dict[int, list[tuple[Step | None, float]]] = {}  # by run, since its models are tested together
    for chain in chains_of(ordered):
        for found in chain.series(ordered):
            series.append(found)
            limit = limits.of(found.name, found.family).get(found.what, math.inf)
            if found.what == "acc":
                for run, step, p in _accuracy_steps(found, chain, limit, ordered):
                    tested.setdefault(run, []).append((step, p))
            elif found.what == "drift":
                steps += _with_causes(_drift_steps(found, chain, limit), chain, ordered)
            else:
                steps += _with_causes(_level_steps(found, limit, noise), chain, ordered)
    for candidates in tested.values():
        adjusted = false_discovery([p for _, p in candidates])
        steps += [step for (step, _), p in zip(candidates, adjusted, strict=True) if step and p <= SIGNIFICANT]
    families = list(family_series(series))
    for found in families:
        if found.what in ("images_per_s", "memory"):
            limit = limits.of(found.name, found.family).get(found.what, math.inf)
            steps += _level_steps(found, limit, noise)
    return History(
        tuple(ordered),
        tuple(sorted([*series, *families], key=lambda s: (not s.of_family, s.family, s.name, WHATS.index(s.what)))),
        tuple(sorted(steps, key=_rank)),
    )


def _rank(step: Step) -> tuple[object, ...]:
    series = step.series
    return -step.run, WHATS.index(series.what), not series.of_family, -abs(step.change), series.name


def find_steps(values: Sequence[float], limit: float, spread: float) -> list[int]:
    """Return the indices at which a series makes a step, as the module describes.

    `limit`, and `spread`, the standard deviation of a value around its level, are in the unit of `values`.

    >>> find_steps([10, 10, 7, 10, 10, 6, 6, 6], 1, 0.1)
    [5]
    """
    found = []
    for place in range(1, len(values)):
        before, after = values[max(0, place - WINDOW) : place], values[place : place + WINDOW]
        (low, high), (below, above) = _level(before), _level(after)
        difference = max(below - high, low - above, 0.0)
        error = spread * math.sqrt(math.pi / 2 * (1 / len(before) + 1 / len(after)))
        if difference > max(limit, Z * error):
            found.append(place)
    if not found:
        return []
    first = max(found, key=lambda place: abs(values[place] - values[place - 1]))
    start, end = max(0, first - WINDOW), first + WINDOW
    base, new = median(values[start:first]), median(values[first:end])

    def misfit(place: int) -> float:
        return sum(abs(v - base) for v in values[start:place]) + sum(abs(v - new) for v in values[place:end])

    place = min((place for place in found if start < place < end), key=misfit)
    later = [place + step for step in find_steps(values[place:], limit, spread)]
    return [*find_steps(values[:place], limit, spread), place, *later]


def _level(values: Sequence[float]) -> tuple[float, float]:
    """Return the median twice; for two values both, since either may be the outlier."""
    if len(values) == 2:
        return min(values), max(values)
    return (median(values),) * 2


def _in_order(runs: Iterable[Run]) -> list[Run]:
    """Return the runs, oldest first; a run saved in two files counts once."""
    ordered: list[Run] = []
    for run in runs:
        if run.datetime is None:
            raise UsageError(f"{run.path} has no datetime, so it cannot be placed in a history")
        if not any(run.datetime == other.datetime and run.results == other.results for other in ordered):
            ordered.append(run)
    return sorted(ordered, key=lambda run: (run.datetime or "", str(run.path)))


def _level_steps(series: Series, limit: float, noise: float) -> Iterator[Step]:
    """Yield the steps of speed or memory, found on the log scale."""
    # A speed that falls by 5 % changes its logarithm by more than a growth of 5 %.
    least = -math.log1p(-limit) if series.what == "images_per_s" and limit < 1 else math.log1p(limit)
    points, logs = series.points, [math.log(point.value) for point in series.points]
    if len(logs) < 2 or max(logs) - min(logs) <= least:
        return
    spread = noise / math.sqrt(2)  # the noise is that of a ratio of two runs
    if len(logs) >= _LEAST_RUNS:
        spread = max(spread, robust_sd(np.diff(logs)) / math.sqrt(2))
    edges = [0, *find_steps(logs, least, spread), len(logs)]
    for start, place, end in zip(edges, edges[1:], edges[2:], strict=False):
        base = math.exp(median(logs[max(start, place - WINDOW) : place]))
        new = math.exp(median(logs[place : min(end, place + WINDOW)]))
        if series.what == "images_per_s" or abs(new - base) > LEAST_MEMORY_MB:
            yield Step(series, points[place - 1].run, points[place].run, base, new, end - place)


def _accuracy_steps(
    series: Series, chain: Chain, limit: float, runs: Sequence[Run]
) -> Iterator[tuple[int, Step | None, float]]:
    """Yield run, step and p-value for each pair of neighbours; None and 1 for a change within the limit."""
    for at, ((before, old), (run, new)) in enumerate(zip(chain.links, chain.links[1:], strict=False), start=1):
        base, now = series.points[at - 1].value, series.points[at].value
        if abs(now - base) <= limit or old.verdicts is None or new.verdicts is None:
            yield run, None, 1.0
            continue
        first, second = verdicts_of(runs[before], old).first, verdicts_of(runs[run], new).first
        p = float(mcnemar(np.sum(first & ~second), np.sum(~first & second)))
        step = Step(series, before, run, base, now, _runs_within(series.points[at:], now, limit))
        (caused,) = _with_causes([step], chain, runs)
        yield run, caused, p


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


def _with_causes(steps: Iterable[Step], chain: Chain, runs: Sequence[Run]) -> Iterator[Step]:
    results: Mapping[int, Result] = dict(chain.links)
    for step in steps:
        pair = Pair(results[step.before], results[step.run])
        yield replace(step, causes=causes_of(pair, runs[step.before], runs[step.run]))
