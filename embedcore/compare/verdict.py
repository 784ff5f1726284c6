"""The gate's verdict: the findings of a comparison under the limits, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from embedcore.compare.comparison import Change, Comparison, ModelChange
from embedcore.compare.interleaved import Interleaved
from embedcore.compare.limits import Accepted, Limits
from embedcore.compare.statistics import embedding_drift
from embedcore.results.result import Result
from embedcore.results.verdicts import unpack_sketch

Level = Literal["regression", "undecided", "accepted", "improvement", "change"]

LEVELS: tuple[Level, ...] = ("regression", "undecided", "accepted", "improvement", "change")
"""In display order. ``undecided``: it may be worse than the limit, but the measurements cannot tell. ``change``: worse,
but within the limit or the noise, or without a limit."""

Confirmed = Mapping[str, "Interleaved | str"]
"""Case → its speed ratio from interleaved processes, or why there is none."""

_ORDER = ("status", "acc", "acc5", "hit5", "drift", "images_per_s", "memory")
"""Quantities, most harmful first."""


@dataclass(frozen=True)
class Finding:
    """One change and its level."""

    level: Level
    model: str
    family: str
    change: Change
    limit: float | None
    """None without a limit."""
    causes: tuple[str, ...] = ()
    because: str = ""
    """Reason given when it was accepted."""


@dataclass(frozen=True)
class Verdict:
    """All findings, worst first, those of one model together."""

    findings: tuple[Finding, ...]
    limits: Limits
    """By which they were judged."""

    def of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Names of the cases whose speed is undecided: an interleaved measurement can decide it."""
        return tuple(finding.model for finding in self.of("undecided") if finding.change.what == "images_per_s")

    @property
    def passed(self) -> bool:
        return not self.of("regression")


def judge(comparison: Comparison, limits: Limits, confirmed: Confirmed = MappingProxyType({})) -> Verdict:
    """Return the findings; a change is a regression if it is worse than its limit, real, and not accepted.

    `confirmed` decides speeds: a regression if the ratio `Interleaved.alarms`, undecided without a ratio.
    """
    findings = [*_of_models(comparison, limits, confirmed), *_of_missing(comparison, limits)]
    worst: dict[tuple[Level, str], tuple[int, int, float]] = {}
    for finding in findings:
        key = finding.level, finding.model
        worst[key] = min(worst.get(key, _badness(finding)), _badness(finding))
    ordered = sorted(findings, key=lambda f: (worst[f.level, f.model], f.model, _badness(f)))
    return Verdict(tuple(ordered), limits)


def _of_models(comparison: Comparison, limits: Limits, confirmed: Confirmed) -> Iterator[Finding]:
    for model in comparison.models:
        own = limits.of(model.model, model.family)
        accepted = limits.accepted.get(model.model)
        answer = confirmed.get(model.model)
        for change in model.changes:
            limit, causes = own.get(change.what), model.causes
            if change.what == "images_per_s" and isinstance(answer, Interleaved):
                change = change_of(answer, change)
                level = _confirmed_level(change, limit, answer, model, accepted)
            elif change.what == "images_per_s" and isinstance(answer, str):
                level, causes = "undecided", (answer, *causes)
            else:
                level = _level(change, limit, model, accepted)
            if level is not None:
                because = accepted.because if accepted is not None and level == "accepted" else ""
                yield Finding(level, model.model, model.family, change, limit, causes, because)


def change_of(ratio: Interleaved, change: Change) -> Change:
    """Return a change of speed with the ratio of interleaved processes instead of that of two sessions."""
    real = ratio.slower or ratio.surely_low > 1
    return Change(change.what, change.base, change.new, 1 - ratio.ratio, 1 - ratio.high, 1 - ratio.low, ratio.p, real)


def _confirmed_level(
    change: Change, limit: float | None, ratio: Interleaved, model: ModelChange, accepted: Accepted | None
) -> Level | None:
    """Return the level of a speed that was measured interleaved, by its own rule."""
    if limit is not None and ratio.alarms(limit):
        known = accepted is not None and _stands(change, limit, model.pair.new, accepted.state)
        return "accepted" if known else "regression"
    return _level(change, None if change.change > 0 else limit, model, accepted)


def _of_missing(comparison: Comparison, limits: Limits) -> Iterator[Finding]:
    gone = [(result, "missing") for result in comparison.pairing.missing]
    gone += [(result, "not reached") for result in comparison.pairing.unreached]
    for result, word in gone:
        limit = limits.of(result.model, result.family).get("status")
        accepted = limits.accepted.get(result.model)
        level: Level = "regression" if limit == 0 and result.ok else "change"
        because = ""
        if level == "regression" and word == "missing" and accepted is not None and accepted.state is None:
            level, because = "accepted", accepted.because
        change = Change("status", result.status, word, float(result.ok))
        yield Finding(level, result.model, result.family, change, limit, (), because)


def _level(change: Change, limit: float | None, model: ModelChange, accepted: Accepted | None) -> Level | None:
    """Return the level of a change; None for equal values and improvements that chance explains."""
    if change.what == "status":
        worse = change.change > 0
        bad = worse and limit == 0
    else:
        worse = change.change > 0 and change.real
        bad = worse and limit is not None and change.change > limit
    if bad:
        known = accepted is not None and _stands(change, limit or 0.0, model.pair.new, accepted.state)
        return "accepted" if known else "regression"
    if worse or (change.what == "status" and change.change == 0):
        return "change"
    # Drift cannot improve; a status improves only if the case is ok again.
    better = change.real and change.change < 0 and change.what != "drift"
    large = change.what == "status" or limit is None or -change.change > limit
    return "improvement" if better and large else None


def _stands(change: Change, limit: float, now: Result, state: Result | None) -> bool:
    """Whether an accepted change still holds: the new result is no worse than the accepted state, by the same limit."""
    if state is None:
        return False
    if change.what == "status":
        return now.status == state.status
    if change.what == "drift":
        if state.sketch is None or now.sketch is None:
            return False
        before, after = unpack_sketch(state.sketch), unpack_sketch(now.sketch)
        return before.shape == after.shape and embedding_drift(before, after) <= limit
    if change.what == "memory":
        if state.peak_memory_mb is None or now.peak_memory_mb is None:
            return False
        return now.peak_memory_mb <= state.peak_memory_mb * (1 + limit)
    if change.what == "images_per_s":
        old, new = state.images_per_s.get("forward"), now.images_per_s.get("forward")
        return old is not None and new is not None and new >= old * (1 - limit)
    old, new = state.scores.get(change.what), now.scores.get(change.what)
    return old is not None and new is not None and new >= old - limit


def _badness(finding: Finding) -> tuple[int, int, float]:
    """Return a sort key, worst first."""
    what = finding.change.what
    place = _ORDER.index(what) if what in _ORDER else len(_ORDER)
    return LEVELS.index(finding.level), place, -abs(finding.change.change)
