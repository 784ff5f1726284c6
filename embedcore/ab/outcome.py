"""What two sides that were measured in turn say of each other, under the gate's limits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcore.ab.interleave import Track
from embedcore.ab.noise import Noise
from embedcore.compare.comparison import Change, Comparison, ModelChange, compare
from embedcore.compare.interleaved import Interleaved
from embedcore.compare.limits import Limits
from embedcore.compare.verdict import LEVELS, Finding, Level, judge
from embedcore.results.run import Run


@dataclass(frozen=True)
class Row:
    """One model."""

    model: str
    level: str
    """That of its worst finding, "" where there is none."""
    ratio: Interleaved | None
    drift: float | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """Causes, and why something was not found out."""

    @property
    def word(self) -> str:
        if self.ratio is None and self.drift is None and not self.findings:
            return "not measured"
        worst = [finding.change.what for finding in self.findings if finding.level == self.level]
        short = {"images_per_s": "faster" if self.level == "improvement" else "slower"}
        words = ", ".join(short.get(what, what) for what in dict.fromkeys(worst))
        level = {"regression": "WORSE", "improvement": "better", "change": "within limits:"}.get(self.level, self.level)
        return f"{level} {words}".strip() or ("no drift" if self.ratio is None else "same")


@dataclass(frozen=True)
class Outcome:
    """All models, the worst first."""

    sides: Mapping[str, str]
    """What A and B are, in words."""
    rows: tuple[Row, ...]
    alone: Mapping[str, Sequence[str]]
    """Models that one side only has."""
    noise: float
    noise_measured: bool
    machine: str | None
    noise_found: Noise | None = None

    @property
    def passed(self) -> bool:
        return all(row.level != "regression" for row in self.rows)


def rows_of(tracks: Sequence[Track], facts: Mapping[str, Mapping[str, Any]], limits: Limits) -> tuple[Row, ...]:
    """Judge the models that both sides have measured; `facts` of each side as `Side.opened` gives them."""
    sides = {side: _run(side, tracks, facts[side]) for side in "AB"}
    comparison = compare(sides["A"], sides["B"])
    by_model = {track.model: track for track in tracks}
    models = tuple(_with_ratio(model, by_model[model.model]) for model in comparison.models)
    comparison = dataclasses.replace(comparison, models=models)
    found = _found(comparison, limits, by_model)
    changes = {model.model: model for model in models}
    rows = [_row(track, changes.get(track.model), found.get(track.model, ())) for track in tracks]
    return tuple(sorted(rows, key=_badness))


def _run(side: str, tracks: Sequence[Track], facts: Mapping[str, Any]) -> Run:
    results = [track.first[side] for track in tracks if side in track.first]
    return Run(
        path=Path(f"side {side}"),
        results=tuple(result for result in results if result.ok),
        excluded=tuple(result for result in results if not result.ok),
        settings=facts["settings"],
        dataset=facts["dataset"],
        machine={"embedcore": facts["machine"]},
        datetime=None,
    )


def _with_ratio(model: ModelChange, track: Track) -> ModelChange:
    """The speed as it was measured in turn, in the place of the one of two processes; a crowd slows both alike."""
    changes = [change for change in model.changes if change.what != "images_per_s"]
    if track.ratio is not None:
        ratio = track.ratio
        real = ratio.slower or ratio.surely_low > 1
        rates = [model.pair.base.images_per_s.get("forward"), model.pair.new.images_per_s.get("forward")]
        changes.append(
            Change("images_per_s", rates[0], rates[1], 1 - ratio.ratio, 1 - ratio.high, 1 - ratio.low, ratio.p, real)
        )
    barriers = {what: why for what, why in model.barriers.items() if what != "images_per_s"}
    return dataclasses.replace(model, changes=tuple(changes), barriers=barriers)


def _found(comparison: Comparison, limits: Limits, tracks: Mapping[str, Track]) -> dict[str, list[Finding]]:
    """The verdict's findings by model; but a speed is judged by its interval: see `Interleaved.alarms`."""
    found: dict[str, list[Finding]] = {}
    for finding in judge(comparison, limits).findings:
        if finding.change.what == "images_per_s" and finding.level in ("regression", "change"):
            level: Level = "regression" if finding.limit is not None and tracks[finding.model].alarm else "change"
            finding = dataclasses.replace(finding, level=level)
        found.setdefault(finding.model, []).append(finding)
    return found


def _row(track: Track, change: ModelChange | None, findings: Sequence[Finding]) -> Row:
    drifts = [c.change for c in change.changes if c.what == "drift"] if change is not None else []
    level = min((finding.level for finding in findings), key=LEVELS.index, default="")
    notes = [*(change.causes if change is not None else ()), *(change.barriers.values() if change is not None else ())]
    notes += [_words(finding) for finding in findings if finding.change.what not in ("images_per_s", "drift")]
    if track.why:
        notes.append(track.why)
    return Row(
        track.model, level, track.ratio, drifts[0] if drifts else None, tuple(findings), tuple(dict.fromkeys(notes))
    )


def _words(finding: Finding) -> str:
    change = finding.change
    return f"{change.what}: {_text(change.base)} → {_text(change.new)}"


def _text(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _badness(row: Row) -> tuple[int, float, str]:
    place = LEVELS.index(row.level) if row.level in LEVELS else len(LEVELS)
    return place, -(row.drift or 0.0) if row.ratio is None else math.log(row.ratio.ratio), row.model
