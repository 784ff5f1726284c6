"""The series of each model and family over saved runs: results that can be compared with one another, joined."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embedcore.compare.pairs import Pair, pair_barriers, run_barriers
from embedcore.compare.statistics import embedding_drift
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import unpack_sketch

WHATS = ("acc", "images_per_s", "memory", "drift")


class Point(NamedTuple):
    """A value and the place of its run."""

    run: int
    value: float


@dataclass(frozen=True)
class Series:
    """One quantity of a model, or of a family, over runs that can be compared with one another."""

    name: str
    """The model by its newest name, or the family."""
    family: str
    what: str
    """One of `WHATS`; drift is that from the run before."""
    points: tuple[Point, ...]
    of_family: bool = False
    """Then a value is the mean of acc or of drift, or the geometric mean of the others; where models come or go the
    series (but of drift) goes on from its last value with the change of those that both runs have."""

    def matches(self, glob: str) -> bool:
        """Whether its name or its family is meant; without ``*``, ``?`` or ``[`` a part of the name is enough."""
        pattern = glob if any(sign in glob for sign in "*?[") else f"*{glob}*"
        return any(fnmatch.fnmatchcase(name, pattern) for name in (self.name, self.family))


@dataclass
class Chain:
    """Results of one model that can be compared with one another."""

    kind: str
    """``scores`` or ``speed``: what of them can be compared."""
    name: str
    family: str
    links: list[tuple[int, Result]]

    def series(self, runs: Sequence[Run]) -> Iterator[Series]:
        columns: Mapping[str, Iterable[tuple[int, float | None]]]
        if self.kind == "scores":
            columns = {"acc": ((place, r.scores["acc"]) for place, r in self.links), "drift": self.drifts(runs)}
        else:
            columns = {
                "images_per_s": ((place, _value(r, "images_per_s")) for place, r in self.links),
                "memory": ((place, r.peak_memory_mb) for place, r in self.links),
            }
        for what, values in columns.items():
            points = tuple(Point(place, value) for place, value in values if value is not None)
            if points:
                yield Series(self.name, self.family, what, points)

    def drifts(self, runs: Sequence[Run]) -> Iterator[tuple[int, float | None]]:
        for (before, old), (place, new) in zip(self.links, self.links[1:], strict=False):
            yield place, _drift(runs[before], old, runs[place], new)


def _drift(base: Run, old: Result, run: Run, new: Result) -> float | None:
    """None where a side has no sketch, infinite where the embeddings have another width."""
    if old.sketch is None or new.sketch is None:
        return None
    if old.sketch == new.sketch:
        return 0.0
    try:
        sketches = unpack_sketch(old.sketch), unpack_sketch(new.sketch)
    except ValueError as error:
        raise UsageError(f"{base.path} or {run.path}: result of {new.model}: {error}") from error
    if old.dim != new.dim or sketches[0].shape != sketches[1].shape:
        return math.inf
    return embedding_drift(*sketches)


def chains_of(runs: Sequence[Run]) -> Iterator[Chain]:
    """The results of each model joined to the newest earlier ones with which they can be compared.

    So runs of two machines that take turns are two series, and not as many as there are runs.
    """
    names: dict[str, str] = {}
    for run in runs:
        names |= run.renamed
    between: dict[tuple[int, int], Mapping[str, str]] = {}
    open_chains: dict[tuple[str, str], list[Chain]] = {}
    for place, run in enumerate(runs):
        for result in run.results:
            name = _newest(result.model, names)
            for kind in ("scores", "speed"):
                chains = open_chains.setdefault((kind, name), [])
                for chain in reversed(chains):
                    last, old = chain.links[-1]
                    if last == place or old.dataset not in (None, result.dataset):
                        continue
                    if (last, place) not in between:
                        between[last, place] = run_barriers(runs[last], run, across_machines=False)
                    if kind not in between[last, place] and kind not in pair_barriers(Pair(old, result)):
                        chain.links.append((place, result))
                        chains.remove(chain)
                        chains.append(chain)  # the newest is asked first
                        break
                else:
                    chains.append(Chain(kind, name, result.family, [(place, result)]))
    for chains in open_chains.values():
        yield from chains


def _newest(model: str, names: Mapping[str, str]) -> str:
    """The name of today, through all renamings."""
    for _ in range(len(names)):
        if model not in names:
            break
        model = names[model]
    return model


def family_series(chains: Iterable[Chain]) -> Iterator[Series]:
    """Of each family and quantity, linked over the models that neighbours have in common."""
    values: dict[tuple[str, str], dict[int, dict[tuple[str, int], float]]] = {}
    for chain in chains:
        whats = ("acc",) if chain.kind == "scores" else ("images_per_s", "memory")
        for what in whats:
            runs = values.setdefault((chain.family, what), {})
            for place, result in chain.links:
                value = _value(result, what)
                if value is not None:
                    runs.setdefault(place, {})[chain.name, chain.links[0][0]] = value
    for (family, what), runs in values.items():
        logs = what != "acc"
        lines: list[tuple[list[Point], dict[tuple[str, int], float]]] = []
        for place in sorted(runs):
            now = runs[place]
            joined = next((line for line in reversed(lines) if line[1].keys() & now.keys()), None)
            if joined is None:
                lines.append(([Point(place, _mean(now.values(), logs=logs))], now))
                continue
            points, before = joined
            common = before.keys() & now.keys()
            old, new = (_mean((side[model] for model in common), logs=logs) for side in (before, now))
            value = points[-1].value
            points.append(Point(place, value * new / old if logs else value + new - old))
            lines.remove(joined)
            lines.append((points, now))
        yield from (Series(family, family, what, tuple(points), of_family=True) for points, _ in lines)


def family_drifts(series: Iterable[Series]) -> Iterator[Series]:
    values: dict[str, dict[int, list[float]]] = {}
    for found in series:
        for point in found.points if found.what == "drift" else ():
            values.setdefault(found.family, {}).setdefault(point.run, []).append(point.value)
    for family, runs in values.items():
        points = tuple(Point(place, _mean(runs[place], logs=False)) for place in sorted(runs))
        yield Series(family, family, "drift", points, of_family=True)


def _value(result: Result, what: str) -> float | None:
    if what == "acc":
        return result.scores["acc"]
    if what == "images_per_s":
        value = None if result.disturbed else result.images_per_s.get("forward")
    else:
        value = result.peak_memory_mb
    return value if value is not None and value > 0 else None


def _mean(values: Iterable[float], *, logs: bool) -> float:
    array = np.fromiter(values, dtype=np.float64)
    return float(np.exp(np.log(array).mean())) if logs else float(array.mean())
