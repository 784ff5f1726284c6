"""The gate's verdict: the findings of a comparison under the limits, worst first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from embedcore.compare.comparison import Comparison, ModelChange
from embedcore.compare.interleaved import Interleaved
from embedcore.compare.judged import MUST_BE_JUDGED, SUSPECT, Judged, judged_of, reasons
from embedcore.compare.limits import TESTED, Accepted, Limits
from embedcore.compare.scores import Change
from embedcore.compare.speed import smallest_seen
from embedcore.compare.statistics import embedding_drift
from embedcore.results.headline import UNLABELLED
from embedcore.results.result import Result
from embedcore.results.verdicts import unpack_sketch

Level = Literal["regression", "undecided", "accepted", "improvement", "change"]

LEVELS: tuple[Level, ...] = ("regression", "undecided", "accepted", "improvement", "change")
"""In display order. ``undecided``: it may be worse than the limit, but the measurements cannot tell. ``change``: worse,
but within the limit or the noise, or without a limit."""

Confirmed = Mapping[str, "Interleaved | str"]
"""Case → its speed ratio from interleaved processes, or why there is none."""

_ORDER = ("status", "degraded", *TESTED, *UNLABELLED, "drift", "images_per_s", "memory")
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
    """All findings, worst first, those of one model together, and how much of what has a limit was judged."""

    findings: tuple[Finding, ...]
    limits: Limits
    """By which they were judged."""
    judged: tuple[Judged, ...] = ()
    """One for each quantity with a limit."""
    suspects: tuple[str, ...] = ()
    """Names of the cases whose speed is undecided and not measured interleaved yet, which could decide it."""

    def of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def unjudged(self) -> tuple[Judged, ...]:
        """Scores and embeddings that could not be judged: the comparison cannot pass."""
        return tuple(part for part in self.judged if part.open and part.what in MUST_BE_JUDGED)

    @property
    def undecided(self) -> tuple[Judged, ...]:
        """Speed and memory that could not be judged."""
        return tuple(part for part in self.judged if part.open and part.what not in MUST_BE_JUDGED)

    @property
    def failed(self) -> bool:
        return bool(self.of("regression"))

    @property
    def passed(self) -> bool:
        """Whether nothing is worse than allowed, and all scores and embeddings with a limit were judged."""
        return not self.failed and not self.unjudged


def judge(comparison: Comparison, limits: Limits, confirmed: Confirmed = MappingProxyType({})) -> Verdict:
    """Return the findings; a change is a regression if it is worse than its limit, real, and not accepted.

    `confirmed` decides speeds: a regression if the ratio `Interleaved.alarms`, undecided without a ratio.
    """
    limits = limits.on(comparison.new.blocks)
    findings = [*_of_models(comparison, limits, confirmed), *_of_run(comparison, limits)]
    findings += _of_missing(comparison, limits)
    worst: dict[tuple[Level, str], tuple[int, int, float]] = {}
    for finding in findings:
        key = finding.level, finding.model
        worst[key] = min(worst.get(key, _badness(finding)), _badness(finding))
    ordered = sorted(findings, key=lambda f: (worst[f.level, f.model], f.model, _badness(f)))
    speeds = [finding for finding in findings if finding.change.what == "images_per_s"]
    settled = {finding.model for finding in speeds if finding.level in ("regression", "accepted")}
    settled |= {name for name, answer in confirmed.items() if isinstance(answer, Interleaved)}
    undecided = {finding.model: finding.causes[0] for finding in speeds if finding.level == "undecided"}
    undecided |= {name: f"not confirmed: {why}" for name, why in confirmed.items() if isinstance(why, str)}
    judged = judged_of(comparison, limits, undecided, settled)
    suspects = (name for part in judged if part.what == "speed" for name in part.open if name not in confirmed)
    return Verdict(tuple(ordered), limits, judged, tuple(suspects))


def why_no_answer(comparison: Comparison, verdict: Verdict) -> str:
    """Return why a comparison without a regression cannot pass; "" if it can.

    That is, if no model was compared, or scores or embeddings with a limit could not be judged.
    """
    if verdict.unjudged:
        return "; ".join(reasons(verdict.unjudged, most_names=3))
    if comparison.compared:
        return ""
    whys = [why for model in comparison.models for why in model.barriers.values()]
    return "; ".join(dict.fromkeys([*comparison.barriers.values(), *whys])) or "they have no measured model in common"


ALL_MODELS = "all models"
"""Stands for a model in findings that concern the whole run."""


def _of_run(comparison: Comparison, limits: Limits) -> Iterator[Finding]:
    if comparison.threads is not None:
        limit = limits.overall.get("status")
        yield Finding("regression" if limit == 0 else "change", ALL_MODELS, "", comparison.threads, limit)


def _of_models(comparison: Comparison, limits: Limits, confirmed: Confirmed) -> Iterator[Finding]:
    for model in comparison.models:
        own = limits.of(model.pair.case, model.family)
        accepted = limits.accepted.get(model.pair.case)
        answer = confirmed.get(model.model)
        changes = list(model.changes)
        if isinstance(answer, Interleaved) and not any(change.what == "images_per_s" for change in changes):
            old, now = (result.images_per_s.get("forward") for result in (model.pair.base, model.pair.new))
            changes.append(Change("images_per_s", old, now, 0.0))  # a barrier of two sessions, not of interleaved ones
        for change in changes:
            if change.what == "images_per_s":
                finding = _of_speed(change, model, own.get(change.what), accepted, answer)
            else:
                limit = own.get("status" if change.what == "degraded" else change.what)
                level = _level(change, limit, model, accepted)
                finding = level and Finding(level, model.model, model.family, change, limit, model.causes)
            if finding and finding.level == "accepted" and accepted is not None:
                finding = replace(finding, because=accepted.because)
            if finding:
                yield finding


def _of_speed(
    change: Change, model: ModelChange, limit: float | None, accepted: Accepted | None, answer: Interleaved | str | None
) -> Finding | None:
    """Judge a speed: clear if the 95 % interval excludes the limit, a regression if the fall surely exceeds it.

    A fall in between is undecided. With a ratio of interleaved processes, `Interleaved.alarms` decides instead. A speed
    without interval is a finding only if the estimated fall exceeds the limit; `Verdict.judged` names all of them.
    """
    gated, causes = limit is not None and math.isfinite(limit), model.causes
    level: Level | None
    if isinstance(answer, Interleaved):
        change = change_of(answer, change)
        bad, known = answer.alarms(limit or 0.0), True
    else:
        bad = change.sure is not None and change.sure > (limit or 0.0)
        known = change.high is not None and (bad or change.high < (limit or 0.0))
    if not gated or (known and not bad):
        level = _level(change, None if change.change > 0 else limit, model, accepted)
    elif accepted is not None and _stands(change, limit or 0.0, model.pair.new, accepted.state):
        level = "accepted"
    elif known:
        level = "regression"
    else:
        level = "undecided" if change.low is not None or change.change > (limit or 0.0) else None
        causes = (*_why_undecided(change, limit or 0.0, model, answer), *causes)
    return None if level is None else Finding(level, model.model, model.family, change, limit, causes)


def _why_undecided(change: Change, limit: float, model: ModelChange, answer: Interleaved | str | None) -> Iterator[str]:
    if isinstance(answer, str):
        yield f"not confirmed: {answer}"
    if "images_per_s" in model.barriers:
        yield model.barriers["images_per_s"]
    elif change.sure is not None:
        yield f"{SUSPECT}: a fall of {100 * smallest_seen(change.change, change.sure, limit):.1f} % would be certain"


def change_of(ratio: Interleaved, change: Change) -> Change:
    """Return a change of speed with the ratio of interleaved processes instead of that of two sessions."""
    real = ratio.slower or ratio.surely_low > 1
    return Change(change.what, change.base, change.new, 1 - ratio.ratio, 1 - ratio.high, 1 - ratio.low, ratio.p, real)


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
    better = change.real and change.change < 0 and change.what not in ("drift", "degraded")
    large = change.what == "status" or limit is None or -change.change > limit
    return "improvement" if better and large else None


def _stands(change: Change, limit: float, now: Result, state: Result | None) -> bool:
    """Whether an accepted change still holds: the new result is no worse than the accepted state, by the same limit."""
    if state is None:
        return False
    if change.what == "status":
        return now.status == state.status
    if change.what == "degraded":
        return state.ok
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
