"""Models on several engines: what each engine and precision costs in accuracy, and what it gains in speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedcore.compare.pairs import Pair, drift_of
from embedcore.compare.scores import Change, score_changes
from embedcore.results.result import Result
from embedcore.results.run import Run

METRIC = "acc"


@dataclass(frozen=True)
class Way:
    """One way to run a model."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


USUAL = Way("eager", "fp32")
"""The way that the others are compared with."""


@dataclass(frozen=True)
class Deployed:
    """A model run one way, beside the same model run the usual way."""

    way: Way
    result: Result
    usual: Result | None
    """None if it could not be measured the usual way."""
    change: Change | None = None
    """The fall of acc, paired by query; None for the usual way itself, and without a result."""
    drift: float | None = None

    @property
    def speedup(self) -> float | None:
        """Images per second over those of the usual way."""
        now, before = (_speed(result) for result in (self.result, self.usual))
        return now / before if now and before else None


def _speed(result: Result | None) -> float | None:
    return None if result is None else result.images_per_s.get("forward")


def deployed(runs: Mapping[Way, Run]) -> tuple[Deployed, ...]:
    """Return each model of each run beside its result of the usual way, ordered by model. Raises UsageError."""
    found = [each for way, run in runs.items() for each in _of_run(way, run, runs[USUAL])]
    models = [result.model for run in runs.values() for result in (*run.results, *run.excluded)]
    order = {model: place for place, model in enumerate(dict.fromkeys(models))}
    return tuple(sorted(found, key=lambda each: order[each.result.model]))


def _of_run(way: Way, run: Run, base: Run) -> Iterator[Deployed]:
    usual = {result.model: result for result in base.results}
    pairs = {result.model: Pair(usual[result.model], result) for result in run.results if result.model in usual}
    changes: dict[str, Change] = {}
    if way != USUAL:
        changes = {m: change for m, change in score_changes([*pairs.values()], base, run) if change.what == METRIC}
    for result in (*run.results, *run.excluded):
        drift = drift_of(pairs[result.model], base, run) if result.model in changes else None
        yield Deployed(way, result, usual.get(result.model), changes.get(result.model), drift)


def leaders(rows: Sequence[Deployed]) -> Mapping[Way, str]:
    """Return the model with the highest acc of each way; the first of equal ones."""
    best: dict[Way, Result] = {}
    for row in rows:
        score = row.result.scores.get(METRIC)
        if score is not None and (row.way not in best or score > best[row.way].scores[METRIC]):
            best[row.way] = row.result
    return {way: result.model for way, result in best.items()}
