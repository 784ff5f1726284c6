"""Series of each model and family over saved runs, joined from results that can be compared with one another."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean, median
from typing import NamedTuple

from embedcore.compare.pairs import Pair, drift_of, pair_barriers, run_barriers
from embedcore.results.process import Pinned
from embedcore.results.result import CROWDED, Result
from embedcore.results.run import Run

WHATS = ("acc", "images_per_s", "memory", "drift")

ALL = "all models"
"""Name of the series of all models."""


class Point(NamedTuple):
    """A value and the index of its run."""

    run: int
    value: float


@dataclass(frozen=True)
class Series:
    """One quantity of a model or family over comparable runs."""

    name: str
    """Newest name of the model, or the family."""
    family: str
    what: str
    """One of `WHATS`; drift is relative to the previous run."""
    points: tuple[Point, ...]
    of_family: bool = False
    """Whether it is the mean over the models of a family, or over all models (`ALL`)."""
    pinned: bool = False
    """Whether it is the speed of one thread that is pinned to a core."""
    device: str | None = None
    """Device of the models."""
    weak: frozenset[int] = frozenset()
    """Runs whose speed was timed in one process only."""

    def matches(self, glob: str) -> bool:
        """Whether `glob` matches the name or the family; without ``*``, ``?`` or ``[`` any part of them matches."""
        pattern = glob if any(sign in glob for sign in "*?[") else f"*{glob}*"
        return any(fnmatch.fnmatchcase(name, pattern) for name in (self.name, self.family))


@dataclass
class Chain:
    """Comparable results of one model, each with the index of its run."""

    kind: str
    """Kind of quantities that are comparable: ``scores`` or ``speed``."""
    name: str
    family: str
    links: list[tuple[int, Result]]

    def series(self, runs: Sequence[Run]) -> Iterator[Series]:
        """Yield its series, without runs that have no value."""
        values: dict[str, list[tuple[int, float | None]]]
        if self.kind == "scores":
            neighbours = zip(self.links, self.links[1:], strict=False)
            values = {
                "acc": [(run, result.scores["acc"]) for run, result in self.links],
                "drift": [
                    (run, drift_of(Pair(old, new), runs[before], runs[run])) for (before, old), (run, new) in neighbours
                ],
            }
        else:
            pinned = self._pinned()
            values = {
                "images_per_s": pinned
                or [(n, r.images_per_s.get("forward")) for n, r in self.links if not r.disturbed],
                "memory": [(run, result.peak_memory_mb) for run, result in self.links],
            }
            # They are compared by their logarithms.
            values = {what: [(n, v) for n, v in column if v and v > 0] for what, column in values.items()}
        for what, column in values.items():
            points = tuple(Point(run, value) for run, value in column if value is not None)
            if points:
                found = Series(self.name, self.family, what, points, device=self.links[-1][1].device)
                if what == "images_per_s":
                    weak = frozenset(run for run, result in self.links if len(result.processes) < 2)
                    found = replace(found, pinned=pinned is not None, weak=weak)
                yield found

    def _pinned(self) -> list[tuple[int, float | None]] | None:
        """Return the speed of one pinned thread in each run, None where it waited for its core; None if a run lacks it
        or used another number of images, since processes then agree less well."""
        timed = [[process.pinned for process in result.processes] for _, result in self.links]
        images = {pinned.images if pinned and pinned.durations else None for run in timed for pinned in run}
        if not all(timed) or len(images) > 1 or None in images:
            return None
        return [(run, pinned_speed(list(filter(None, of)))) for (run, _), of in zip(self.links, timed, strict=True)]


def pinned_speed(processes: Sequence[Pinned]) -> float | None:
    """Return images per second of one pinned thread, the median over undisturbed processes; None without one.

    >>> pinned_speed([Pinned(core=0, images=4, durations=(2.0, 1.0, 2.0))])
    2.0
    """
    speeds = [each.images / median(each.durations) for each in processes if (each.crowded or 0.0) <= CROWDED]
    return median(speeds) if speeds else None


def chains_of(runs: Sequence[Run]) -> Iterator[Chain]:
    """Join each result to the newest earlier one of the model with which it can be compared.

    Runs of two machines that alternate thus make two series instead of breaking one at every run.
    """
    renamed = {old: new for run in runs for old, new in run.renamed.items()}
    barriers: dict[tuple[int, int], Mapping[str, str]] = {}
    open_chains: dict[tuple[str, str], list[Chain]] = {}
    for place, run in enumerate(runs):
        for result in run.results:
            name = _newest(result.model, renamed)
            for kind in ("scores", "speed"):
                chains = open_chains.setdefault((kind, name), [])
                for chain in reversed(chains):
                    last, old = chain.links[-1]
                    if last == place or old.dataset not in (None, result.dataset):
                        continue
                    if (last, place) not in barriers:
                        barriers[last, place] = run_barriers(runs[last], run, across_machines=False)
                    if kind not in barriers[last, place] and kind not in pair_barriers(Pair(old, result)):
                        chain.links.append((place, result))
                        chains.remove(chain)
                        chains.append(chain)  # newest last
                        break
                else:
                    chains.append(Chain(kind, name, result.family, [(place, result)]))
    for chains in open_chains.values():
        yield from chains


def _newest(model: str, renamed: Mapping[str, str]) -> str:
    """Return the current name of a model; timm may have renamed it more than once."""
    for _ in renamed:
        model = renamed.get(model, model)
    return model


def family_series(series: Sequence[Series]) -> Iterator[Series]:
    """Yield the means of each family: arithmetic for acc and drift, geometric for speed and memory; with several
    families also the speed of all models, named `ALL`.

    If models are added or missing, a series (except drift) continues from its last value with the change of the models
    that both runs have.
    """
    yield from _means([(one.family, one) for one in series])
    if len({one.family for one in series}) > 1:
        yield from _means([(ALL, one) for one in series if one.what == "images_per_s"])


def _means(members: Sequence[tuple[str, Series]]) -> Iterator[Series]:
    """Yield the mean series of each group, from pairs of a group and a model's series."""
    groups: dict[tuple[str, str, str | None, bool], list[Series]] = {}
    for group, one in members:
        groups.setdefault((group, one.what, one.device, one.pinned), []).append(one)
    for (group, what, device, pinned), models in groups.items():
        runs: dict[int, dict[int, float]] = {}
        for number, found in enumerate(models):
            for run, value in found.points:
                runs.setdefault(run, {})[number] = value
        if what == "drift":
            lines = [[Point(run, fmean(runs[run].values())) for run in sorted(runs)]]
        else:
            lines = _linked(runs, logs=what != "acc")
        weak = frozenset(run for found in models for run in found.weak)
        for points in lines:
            yield Series(group, group, what, tuple(points), True, pinned, device, weak)


def _linked(runs: Mapping[int, Mapping[int, float]], *, logs: bool) -> list[list[Point]]:
    """Chain the means of values (by run, then by model); a run without a model of earlier runs starts a new chain."""
    mean = geometric_mean if logs else fmean
    lines: list[tuple[list[Point], Mapping[int, float]]] = []
    for run in sorted(runs):
        now = runs[run]
        line = next((line for line in reversed(lines) if line[1].keys() & now.keys()), None)
        if line is None:
            lines.append(([Point(run, mean(now.values()))], now))
            continue
        points, before = line
        common = before.keys() & now.keys()
        old, new = (mean([side[model] for model in common]) for side in (before, now))
        value = points[-1].value
        lines.remove(line)
        lines.append(([*points, Point(run, value * new / old if logs else value + new - old)], now))
    return [points for points, _ in lines]
