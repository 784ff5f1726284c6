"""Many saved runs in order of time: the series of each model and family, and the runs where a series made a step.

A step of speed or memory in a series x: between run i - 1 and run i, the medians of the up to `WINDOW` runs before and
after differ by more than the limit, and by more than `Z` times their standard error; of two runs the one nearer to the
other side counts, so that no single run makes a step in the middle of a series. (A change-point library sees such a run
as two steps, and none in the newest run, or needs several runs after the change.) Of such places the one with the
largest jump from run to run, or a place near it that fits both levels better, is taken, and its two sides are searched
alike. A step in the newest run rests on it alone.
A step of accuracy is a change between neighbours which exceeds the limit and which the paired test of `compare` finds
real; a step of drift one that exceeds the limit and what rounding explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from embedcore.compare.causes import causes_of, rounding
from embedcore.compare.comparison import LEAST_MEMORY_MB, NOISE, SIGNIFICANT
from embedcore.compare.limits import Limits
from embedcore.compare.pairs import Pair
from embedcore.compare.series import WHATS, Chain, Point, Series, chains_of, family_drifts, family_series
from embedcore.compare.statistics import false_discovery, mcnemar
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import unpack_verdicts

WINDOW = 3
"""Runs on either side of a step that are looked at."""
Z = 4.0
"""A chance of about 1 in 10,000 that a run of a series without a step makes one; a history has many runs and models."""

_LEAST_RUNS = 6  # from so many on a series tells its own spread


@dataclass(frozen=True)
class Step:
    """Where a series changed for good, or in its newest run."""

    series: Series
    before: int
    run: int
    """Places of the last run before and the first one after."""
    base: float
    new: float
    """Levels before and after."""
    runs_after: int
    """Runs that show the new level; 1 is not confirmed by another run."""
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
    """Runs, the oldest first, and what became of each model and family over them."""

    runs: tuple[Run, ...]
    series: tuple[Series, ...]
    steps: tuple[Step, ...]
    """The newest first, in a run families first and the largest change first."""

    def facts(self, step: Step) -> list[str]:
        """What else was new in the run of a step, a phrase each: commit, versions, machine."""
        base, new = self.runs[step.before], self.runs[step.run]
        sides = [{"commit": run.commit, **run.versions} for run in (base, new)]
        keys = ("commit", "timm", "torch", "cuda", "cudnn", "driver", "gpu", "processor", "python")
        pairs = ((key, sides[0].get(key), sides[1].get(key)) for key in keys)
        return [f"{key} {_short(key, old)} → {_short(key, now)}" for key, old, now in pairs if old != now]


def _short(key: str, value: object) -> str:
    return str(value)[:10] if key == "commit" else str(value)


def history(runs: Iterable[Run], limits: Limits) -> History:
    """The history of saved runs. Raises UsageError for a run without a date, and for verdicts and sketches that cannot
    be read."""
    ordered = _in_order(runs)
    chains = list(chains_of(ordered))
    scored = [chain for chain in chains if chain.kind == "scores"]
    results = {(chain.name, place): result for chain in chains for place, result in chain.links}
    series: list[Series] = []
    for chain in chains:
        series += chain.series(ordered)
    series += [*family_series(chains), *family_drifts(series)]
    steps = list(_accuracy_steps(scored, ordered, limits))
    noise = max((run.noise for run in ordered if run.noise is not None), default=NOISE)
    for found in series:
        if found.what in ("images_per_s", "memory"):
            steps += _level_steps(found, limits, noise)
    for chain in scored:
        steps += _drift_steps(chain, ordered, limits)
    steps = [replace(step, causes=_causes(step, results, ordered)) for step in steps]
    return History(
        tuple(ordered),
        tuple(sorted(series, key=lambda s: (not s.of_family, s.family, s.name, WHATS.index(s.what)))),
        tuple(sorted(steps, key=_rank)),
    )


def _rank(step: Step) -> tuple[object, ...]:
    series = step.series
    return -step.run, WHATS.index(series.what), not series.of_family, -abs(step.change), series.name


def find_steps(values: Sequence[float], limit: float, spread: float) -> list[int]:
    """The places where a series makes a step, see the module; `limit` and `spread`, the standard deviation of a value
    around its level, in the unit of `values`.

    >>> find_steps([10, 10, 7, 10, 10, 6, 6, 6], 1, 0.1)
    [5]
    """
    found = []
    for place in range(1, len(values)):
        before, after = values[max(0, place - WINDOW) : place], values[place : place + WINDOW]
        (low, high), (below, above) = _range(before), _range(after)
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


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The median; of two values, both, as nobody knows which of them is the odd one."""
    if len(values) == 2:
        return min(values), max(values)
    return (median(values),) * 2


def _in_order(runs: Iterable[Run]) -> list[Run]:
    """The oldest first; a run that was saved in two files once."""
    ordered: list[Run] = []
    for run in runs:
        if run.datetime is None:
            raise UsageError(f"{run.path} has no datetime: its place in the history is not known")
        if not any(run.datetime == other.datetime and run.results == other.results for other in ordered):
            ordered.append(run)
    return sorted(ordered, key=lambda run: (run.datetime or "", str(run.path)))


def _level_steps(series: Series, limits: Limits, noise: float) -> Iterator[Step]:
    """Steps of speed or memory, on the log scale."""
    limit = limits.of(series.name, series.family).get(series.what, math.inf)
    points = [point for point in series.points if point.value > 0]
    # A fall of speed by a twentieth is a fall of its logarithm by more than that.
    least = -math.log1p(-limit) if series.what == "images_per_s" and limit < 1 else math.log1p(limit)
    logs = [math.log(point.value) for point in points]
    if len(logs) < 2 or max(logs) - min(logs) <= least:
        return
    spread = noise / math.sqrt(2)  # the noise is that of a ratio of two runs
    if len(logs) >= _LEAST_RUNS:
        moves = np.abs(np.diff(logs)).tolist()
        spread = max(spread, 1.4826 * median(moves) / math.sqrt(2))
    edges = [0, *find_steps(logs, least, spread), len(logs)]
    for start, place, end in zip(edges, edges[1:], edges[2:], strict=False):
        base = math.exp(median(logs[max(start, place - WINDOW) : place]))
        new = math.exp(median(logs[place : min(end, place + WINDOW)]))
        if series.what == "images_per_s" or abs(new - base) > LEAST_MEMORY_MB:
            yield Step(series, points[place - 1].run, points[place].run, base, new, end - place)


def _accuracy_steps(chains: Iterable[Chain], runs: Sequence[Run], limits: Limits) -> Iterator[Step]:
    """Changes of acc between neighbours that are real over all models of a run."""
    found: dict[int, list[tuple[Step, float]]] = {}
    tests: dict[int, int] = {}
    for chain in chains:
        limit = limits.of(chain.name, chain.family).get("acc", math.inf)
        for at, ((before, old), (place, new)) in enumerate(zip(chain.links, chain.links[1:], strict=False), start=1):
            tests[place] = tests.get(place, 0) + 1
            base, now = old.scores["acc"], new.scores["acc"]
            if abs(now - base) <= limit or old.verdicts is None or new.verdicts is None:
                continue
            try:
                first, second = unpack_verdicts(old.verdicts).first, unpack_verdicts(new.verdicts).first
                p = float(mcnemar([np.sum(first & ~second)], [np.sum(~first & second)])[0])
            except ValueError as error:
                message = f"{runs[before].path} or {runs[place].path}: result of {new.model}: {error}"
                raise UsageError(message) from error
            series = Series(chain.name, chain.family, "acc", tuple(Point(n, r.scores["acc"]) for n, r in chain.links))
            step = Step(series, before, place, base, now, _runs_alike(series.points[at:], limit))
            found.setdefault(place, []).append((step, p))
    for place, candidates in found.items():
        # What is within the limit counts as tested, and as not real.
        values = [value for _, value in candidates] + [1.0] * (tests[place] - len(candidates))
        for (step, _), adjusted in zip(candidates, false_discovery(values), strict=False):
            if adjusted <= SIGNIFICANT:
                yield step


def _runs_alike(points: Sequence[Point], limit: float) -> int:
    """How many runs from the first one on stay within `limit` of it."""
    away = (at for at, point in enumerate(points) if abs(point.value - points[0].value) > limit)
    return next(away, len(points))


def _drift_steps(chain: Chain, runs: Sequence[Run], limits: Limits) -> Iterator[Step]:
    limit = limits.of(chain.name, chain.family).get("drift", math.inf)
    points = [Point(place, value) for place, value in chain.drifts(runs) if value is not None]
    before = {place: old for (old, _), (place, _) in zip(chain.links, chain.links[1:], strict=False)}
    results = dict(chain.links)
    series = Series(chain.name, chain.family, "drift", tuple(points))
    for at, point in enumerate(points):
        if point.value > max(limit, rounding(results[point.run].precision)):
            after = _runs_alike((Point(point.run, 0.0), *points[at + 1 :]), limit)
            yield Step(series, before[point.run], point.run, 0.0, point.value, after)


def _causes(step: Step, results: Mapping[tuple[str, int], Result], runs: Sequence[Run]) -> tuple[str, ...]:
    if step.series.of_family:
        return ()
    base, new = (results[step.series.name, place] for place in (step.before, step.run))
    try:
        return causes_of(Pair(base, new), runs[step.before], runs[step.run])
    except ValueError as error:
        raise UsageError(f"{runs[step.run].path}: result of {new.model}: {error}") from error
