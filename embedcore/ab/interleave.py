"""Models measured on two sides in turn, A B B A, B A A B, …, each time in a fresh process, until the ratio is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from embedcore.compare.interleaved import (
    LOOKS,
    NOISE,
    Interleaved,
    log_speed,
    order_of,
    pooled_noise,
    ratio_of,
    rounds_for,
)
from embedcore.results.result import Result

Told = Callable[[str, int, int], None]
"""Called with a model, how many models are done, and how many there are."""


class Measures(Protocol):
    """What measures a model on side ``A`` or ``B`` for the `number`-th time, as asked for in `changes`."""

    def __call__(self, side: str, model: str, number: int, changes: dict[str, Any]) -> Result: ...


@dataclass
class Track:
    """One model: its first results on both sides, and the log ratios of neighbouring processes so far."""

    model: str
    first: dict[str, Result] = field(default_factory=dict)
    equal: dict[str, Any] = field(default_factory=dict)
    """What both sides are asked for, so that they do the same: batch size, precision, memory layout."""
    pairs: list[float] = field(default_factory=list)
    blocks: int = 0
    ratio: Interleaved | None = None
    alarmed_after: int = 0
    """Blocks after which it was first found to be slower, and has been since; 0 while it is not."""
    settled: bool = False
    """Whether there is nothing more to find out."""
    why: str = ""
    """Why it has no ratio, or one that is less narrow than it should be."""

    @property
    def alarm(self) -> bool:
        """Whether it was found to be slower by the limit, and still was when as many processes again had run."""
        return bool(self.alarmed_after) and (self.blocks >= 2 * self.alarmed_after or self.blocks == LOOKS[-1])

    @property
    def measured(self) -> bool:
        return len(self.first) == 2


def interleave(
    models: Sequence[str],
    measure: Measures,
    limits: Callable[[str], float],
    *,
    noise: float = NOISE,
    seconds: float = float("inf"),
    told: Told | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Track]:
    """Measure all models until each ratio's interval is narrow beside the limit of its model (a fraction of 1).

    First all models as often as the first look needs, then again and again those that are not known yet: so that a
    disturbance of minutes is not all that a model saw, and a budget of `seconds` gives something of each. An alarm must
    stand when as many processes again have run.
    """
    deadline = clock() + seconds
    tracks = [Track(model) for model in models]
    for look, blocks in enumerate(LOOKS):
        for place, track in enumerate(tracks):
            if told is not None and not track.settled:
                told(track.model, sum(t.settled for t in tracks) if look else place, len(tracks))
            while track.blocks < blocks and not track.settled:
                if clock() >= deadline:
                    track.why, track.settled = "the budget was used up", True
                    break
                _measure_block(track, measure)
        # What all models show together is better known than the scatter of one.
        known = max(noise, pooled_noise([track.pairs for track in tracks]) or 0.0)
        for track in tracks:
            if track.blocks == blocks:
                _look(track, limits(track.model), len(models), known)
    for track in tracks:
        if not track.settled:
            track.why = f"not known better after {track.blocks * 4} processes"
        elif track.why and track.alarmed_after and not track.alarm:
            track.why = f"slower, but not confirmed by as many processes again: {track.why}"
    return tracks


def _look(track: Track, limit: float, models: int, noise: float) -> None:
    track.ratio = ratio_of(track.pairs, models=models, noise=noise)
    if not track.ratio.alarms(limit):
        track.alarmed_after = 0
        track.settled = track.ratio.settled(limit)
    elif not track.alarmed_after:
        track.alarmed_after = track.blocks
    else:
        track.settled = track.alarm


def _measure_block(track: Track, measure: Measures) -> None:
    """Four processes more; the first two of all also tell what is equal on both sides from then on."""
    if not track.measured:
        _measure_first(track, measure)
        if track.settled:
            return
    speeds = []
    for place, side in enumerate(order_of(track.blocks)):
        number = 2 * track.blocks + sum(s == side for s in order_of(track.blocks)[:place])
        result = track.first[side]
        if number or result.batch_decayed or not _alike(result, track.equal):
            result = measure(side, track.model, number, track.equal)
        if not result.ok or result.batch_size != track.equal.get("batch_size"):
            track.why = f"side {side} on try {number + 1}: {result.reason or 'memory for a smaller batch only'}"
            track.settled = True
            return
        speeds.append((side, log_speed(result.durations)))
    for one, other in (speeds[:2], speeds[2:]):
        logs = dict((one, other))
        track.pairs.append(logs["B"] - logs["A"])
    track.blocks += 1


def _alike(result: Result, equal: Mapping[str, Any]) -> bool:
    """Whether a first measurement was made as both sides are asked for."""
    made: dict[str, Any] = {"rounds": len(result.durations), "batch_size": result.batch_size}
    made |= {"channels_last": result.channels_last, "precision": result.precision}
    return all(made[key] == value for key, value in equal.items())


def _measure_first(track: Track, measure: Measures) -> None:
    for side in "AB":
        track.first[side] = measure(side, track.model, 0, {})
    base, new = track.first["A"], track.first["B"]
    if not (base.ok and new.ok):
        track.settled = True
        track.why = "; ".join(r.reason for r in (base, new) if not r.ok)
        return
    # The layout is chosen by a try, which a busy machine may mislead: as side A found it, on both.
    track.equal = {
        "batch_size": min(base.batch_size or 1, new.batch_size or 1),
        "channels_last": base.channels_last,
        "rounds": max(rounds_for(base.durations), rounds_for(new.durations)),
    }
    if base.precision == new.precision:
        track.equal["precision"] = base.precision
