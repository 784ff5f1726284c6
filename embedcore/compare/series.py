"""Series of each model and family over saved runs, joined from results that can be compared with one another."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import NamedTuple

from embedcore.compare.pairs import Pair, drift_of, pair_barriers, run_barriers
from embedcore.results.result import Result
from embedcore.results.run import Run

WHATS = ("acc", "images_per_s", "memory", "drift")


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
            values = {
                "images_per_s": [(n, r.images_per_s.get("forward") or None) for n, r in self.links if not r.disturbed],
                "memory": [(n, r.peak_memory_mb or None) for n, r in self.links],
            }
        for what, column in values.items():
            points = tuple(Point(run, value) for run, value in column if value is not None)
            if points:
                yield Series(self.name, self.family, what, points)


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
    """Yield the means of each family: arithmetic for acc and drift, geometric for speed and memory.

    If models are added or missing, a series (except drift) continues from its last value with the change of the models
    that both runs have.
    """
    values: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for number, found in enumerate(series):
        runs = values.setdefault((found.family, found.what), {})
        for run, value in found.points:
            runs.setdefault(run, {})[number] = value
    for (family, what), runs in values.items():
        if what == "drift":
            lines = [[Point(run, fmean(runs[run].values())) for run in sorted(runs)]]
        else:
            lines = _linked(runs, logs=what != "acc")
        yield from (Series(family, family, what, tuple(points), of_family=True) for points in lines)


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
