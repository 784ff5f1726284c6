"""The outcome of `ab`: each model's speed ratio, drift and findings under the gate's limits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcore.ab.noise import Noise
from embedcore.ab.schedule import Track
from embedcore.compare.comparison import ModelChange, compare
from embedcore.compare.interleaved import Interleaved
from embedcore.compare.limits import Limits
from embedcore.compare.origin import Origin
from embedcore.compare.scores import Change
from embedcore.compare.stored_embeddings import StoredEmbeddings
from embedcore.compare.verdict import LEVELS, Finding, Level, change_of, judge
from embedcore.results.result import Result
from embedcore.results.run import Run


@dataclass(frozen=True)
class Row:
    """One model."""

    model: str
    level: str
    """Level of its worst finding, or ""."""
    ratio: Interleaved | None
    drift: float | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """Likely causes, and reasons for missing values."""
    undecided: str = ""
    """Why its speed, which has a limit, could not be judged; "" if it was."""
    origin: Origin | None = None
    """Where a drift began."""

    @property
    def judged(self) -> bool:
        """Whether anything about it is known."""
        speed = self.ratio is not None and not self.undecided
        return speed or self.drift is not None or any(finding.level != "undecided" for finding in self.findings)

    @property
    def word(self) -> str:
        """Verdict in words, such as ``WORSE slower``."""
        if self.ratio is None and self.drift is None and not self.findings:
            return "not measured"
        worst = [finding.change.what for finding in self.findings if finding.level == self.level]
        short = {"images_per_s": "faster" if self.level == "improvement" else "slower"}
        words = ", ".join(short.get(what, what) for what in dict.fromkeys(worst))
        level = {"regression": "WORSE", "improvement": "better", "change": "within limits:"}.get(self.level, self.level)
        unchanged = "undecided" if self.undecided and self.ratio is not None else "same"
        return f"{level} {words}".strip() or ("no drift" if self.ratio is None else unchanged)


@dataclass(frozen=True)
class Outcome:
    """All models, worst first."""

    sides: Mapping[str, str]
    """Names and versions of A and B."""
    rows: tuple[Row, ...]
    alone: Mapping[str, Sequence[str]]
    """Models that only one side has."""
    noise: float
    noise_measured: bool
    machine: str | None
    limits: Limits
    noise_found: Noise | None = None
    stored: tuple[StoredEmbeddings, ...] = ()
    """Answers on side A's stored embeddings; empty if they were not asked for."""

    @property
    def passed(self) -> bool:
        """Whether something was judged, and nothing is worse than allowed."""
        return any(row.judged for row in self.rows) and all(row.level != "regression" for row in self.rows)

    @property
    def undecided(self) -> Mapping[str, str]:
        """The models whose speed could not be judged, and why."""
        return {row.model: row.undecided for row in self.rows if row.undecided}


def rows_of(tracks: Sequence[Track], facts: Mapping[str, Mapping[str, Any]], limits: Limits) -> tuple[Row, ...]:
    """Judge the models of both sides; `facts`: what `Side.opened` returned for each side."""
    results = {side: [track.first[side] for track in tracks if side in track.first] for side in "AB"}
    comparison = compare(*(side_run(side, results[side], facts[side]["dataset"], facts[side]) for side in "AB"))
    by_model = {track.model: track for track in tracks}
    changes = {change.model: _with_ratio(change, by_model[change.model]) for change in comparison.models}
    comparison = dataclasses.replace(comparison, models=tuple(changes.values()))
    findings: dict[str, list[Finding]] = {model: [] for model in by_model}
    ratios = {track.model: track.ratio for track in tracks if track.ratio is not None}
    for finding in judge(comparison, limits, ratios).findings:
        if finding.change.what == "images_per_s" and finding.level in ("regression", "change"):
            # A speed is judged by its interval: see `Interleaved.alarms`.
            track = by_model[finding.model]
            unfinished: Level = "undecided" if finding.limit is not None and track.why else "change"
            level: Level = "regression" if finding.limit is not None and track.alarm else unfinished
            finding = dataclasses.replace(finding, level=level)
        findings.setdefault(finding.model, []).append(finding)
    rows = [_row(track, changes.get(track.model), findings[track.model], limits) for track in tracks]
    return tuple(sorted(rows, key=_badness))


def side_run(side: str, results: Sequence[Result], dataset: Mapping[str, Any], facts: Mapping[str, Any] = {}) -> Run:
    """Return the results of a side as a run, so that two sides are compared as two runs are."""
    measured, excluded = (tuple(result for result in results if result.ok is ok) for ok in (True, False))
    settings, machine = facts.get("settings", {}), {"embedcore": facts.get("machine", {})}
    return Run(Path(f"side {side}"), measured, excluded, settings, dataset, machine, datetime=None)


def _with_ratio(model: ModelChange, track: Track) -> ModelChange:
    """Replace the speed by the interleaved one, which contention does not bar, since it slows both sides."""
    changes = [change for change in model.changes if change.what != "images_per_s"]
    if track.ratio is not None:
        old, now = (result.images_per_s.get("forward") for result in (model.pair.base, model.pair.new))
        changes.append(change_of(track.ratio, Change("images_per_s", old, now, 0.0)))
    barriers = {what: why for what, why in model.barriers.items() if what != "images_per_s"}
    return dataclasses.replace(model, changes=tuple(changes), barriers=barriers)


def _row(track: Track, change: ModelChange | None, findings: Sequence[Finding], limits: Limits) -> Row:
    drift = next((c.change for c in change.changes if c.what == "drift"), None) if change else None
    level = min((finding.level for finding in findings), key=LEVELS.index, default="")
    notes = [*change.causes, *change.barriers.values()] if change else []
    others = (finding.change for finding in findings if finding.change.what not in ("images_per_s", "drift"))
    notes += [f"{other.what}: {_text(other.base)} → {_text(other.new)}" for other in others]
    notes += [track.why] if track.why else []
    family = next((result.family for result in track.first.values()), "")
    limited = "images_per_s" in limits.of(track.model, family)
    undecided = track.why if limited and not track.alarm else ""
    return Row(track.model, level, track.ratio, drift, tuple(findings), tuple(dict.fromkeys(notes)), undecided)


def _text(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _badness(row: Row) -> tuple[int, float, str]:
    """Return a sort key, worst first."""
    place = LEVELS.index(row.level) if row.level in LEVELS else len(LEVELS)
    return place, -(row.drift or 0.0) if row.ratio is None else math.log(row.ratio.ratio), row.model
