"""May this pass? Findings of a comparison under the gate's limits, the worst first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from embedcore.compare.comparison import Change, Comparison, ModelChange
from embedcore.compare.limits import Accepted, Limits
from embedcore.compare.statistics import embedding_drift
from embedcore.results.result import Result
from embedcore.results.verdicts import unpack_sketch

Level = Literal["regression", "accepted", "improvement", "change"]

LEVELS: tuple[Level, ...] = ("regression", "accepted", "improvement", "change")
"""In the order in which they are shown. ``change``: worse within the limit or the noise, or without a limit."""


@dataclass(frozen=True)
class Finding:
    """One change and what the gate makes of it."""

    level: Level
    model: str
    family: str
    change: Change
    limit: float | None
    """None where there is no limit for it."""
    causes: tuple[str, ...] = ()
    because: str = ""
    """Why it is accepted."""


@dataclass(frozen=True)
class Verdict:
    """All findings, the worst first, those of one model together, and whether the gate lets pass."""

    findings: tuple[Finding, ...]

    def of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def passed(self) -> bool:
        return not self.of("regression")


def judge(comparison: Comparison, limits: Limits) -> Verdict:
    """A change is a regression if it is worse than its limit, real, and not accepted."""
    findings = [*_of_models(comparison, limits), *_of_missing(comparison, limits)]
    worst: dict[tuple[Level, str], _Badness] = {}
    for finding in findings:
        key = finding.level, finding.model
        worst[key] = min(worst.get(key, _badness(finding)), _badness(finding))
    ordered = sorted(findings, key=lambda f: (worst[f.level, f.model], f.model, _badness(f)))
    return Verdict(tuple(ordered))


def _of_models(comparison: Comparison, limits: Limits) -> Iterator[Finding]:
    for model in comparison.models:
        own = limits.of(model.model, model.family)
        for change in model.changes:
            level, because = _level(change, own.get(change.what), model, limits.accepted.get(model.model))
            if level is not None:
                yield Finding(level, model.model, model.family, change, own.get(change.what), model.causes, because)


def _of_missing(comparison: Comparison, limits: Limits) -> Iterator[Finding]:
    gone = [(result, "missing") for result in comparison.pairing.missing]
    gone += [(result, "not reached") for result in comparison.pairing.unreached]
    for result, word in gone:
        limit = limits.of(result.model, result.family).get("status")
        change = Change("status", result.status, word, float(result.ok))
        entry = limits.accepted.get(result.model)
        level: Level = "change" if limit != 0 or not result.ok else "regression"
        if level == "regression" and word == "missing" and entry is not None and entry.state is None:
            level = "accepted"
        because = entry.because if entry is not None and level == "accepted" else ""
        yield Finding(level, result.model, result.family, change, limit, (), because)


def _level(change: Change, limit: float | None, model: ModelChange, entry: Accepted | None) -> tuple[Level | None, str]:
    """None for what is not worth a word: equal, or better by chance."""
    if change.what == "status":
        worse = change.change > 0
        bad = worse and limit == 0
    else:
        worse = change.change > 0 and change.real
        bad = worse and limit is not None and change.change > limit
    if bad and entry is not None and _is_known(change, limit or 0.0, model.pair.new, entry.state):
        return "accepted", entry.because
    if bad:
        return "regression", ""
    if worse or (change.what == "status" and change.change == 0):
        return "change", ""
    # Drift and status have no better side but a case that is ok again.
    better = change.real and (change.change < 0)
    large = change.what == "status" or limit is None or -change.change > limit
    return ("improvement" if better and large and change.what != "drift" else None), ""


def _is_known(change: Change, limit: float, now: Result, state: Result | None) -> bool:
    """Whether the new side is no worse than the state that was accepted, by the same limit."""
    if state is None:
        return False
    match change.what:
        case "status":
            return now.status == state.status
        case "images_per_s":
            old, new = state.images_per_s.get("forward"), now.images_per_s.get("forward")
            return old is not None and new is not None and new >= old * (1 - limit)
        case "memory":
            return state.peak_memory_mb is not None and (now.peak_memory_mb or math.inf) <= state.peak_memory_mb * (
                1 + limit
            )
        case "drift":
            if state.sketch is None or now.sketch is None:
                return False
            before, after = unpack_sketch(state.sketch), unpack_sketch(now.sketch)
            return before.shape == after.shape and embedding_drift(before, after) <= limit
        case metric:
            before_score, after_score = state.scores.get(metric), now.scores.get(metric)
            return before_score is not None and after_score is not None and after_score >= before_score - limit


# The greatest harm first: a case that is lost, then scores, embeddings, speed, memory.
_ORDER: Mapping[str, int] = {"status": 0, "acc": 1, "acc5": 2, "hit5": 3, "drift": 4, "images_per_s": 5, "memory": 6}


_Badness = tuple[int, int, float]


def _badness(finding: Finding) -> _Badness:
    change = finding.change
    return LEVELS.index(finding.level), _ORDER.get(change.what, len(_ORDER)), -abs(change.change)
