"""Models measured on two sides, round by round in turn, each time in fresh processes, until the ratio is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from embedcore.compare.interleaved import (
    LOOKS,
    NOISE,
    Interleaved,
    paired_ratio,
    pooled_noise,
    ratio_of,
    rounds_for,
)
from embedcore.results.result import Result

Told = Callable[[str, int, int], None]
"""Called with a model, how many models are done, and how many there are."""


class Measures(Protocol):
    """What measures a model on the sides ``A`` and ``B``."""

    def alone(self, side: str, model: str) -> Result:
        """On one side, with its own settings."""

    def in_turn(self, model: str, number: int, equal: Mapping[str, Any]) -> Mapping[str, Result]:
        """On both, in fresh processes that time their rounds in turn, as `equal` says, for the `number`-th time."""


@dataclass
class Track:
    """One model: its results on each side alone, and the log ratios of the pairs of processes so far."""

    model: str
    first: dict[str, Result] = field(default_factory=dict)
    equal: dict[str, Any] = field(default_factory=dict)
    """What both sides are asked for, so that they do the same: batch size, precision, memory layout."""
    pairs: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """Of each log ratio, from the scatter of the rounds."""
    speeds: dict[str, list[float]] = field(default_factory=lambda: {"A": [], "B": []})
    """Of each side's process of each pair, the log of its rounds per second."""
    ratio: Interleaved | None = None
    alarmed_after: int = 0
    """Pairs after which it was first found to be slower, and has been since; 0 while it is not."""
    settled: bool = False
    """Whether there is nothing more to find out."""
    why: str = ""
    """Why it has no ratio, or one that is less narrow than it should be."""

    @property
    def alarm(self) -> bool:
        """Whether it was found to be slower by the limit, and still was when as many pairs again had run."""
        return bool(self.alarmed_after) and (len(self.pairs) >= 2 * self.alarmed_after or len(self.pairs) == LOOKS[-1])

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
    stand when as many pairs again have run.
    """
    deadline = clock() + seconds
    tracks = [Track(model) for model in models]
    for look, pairs in enumerate(LOOKS):
        for place, track in enumerate(tracks):
            if told is not None and not track.settled:
                told(track.model, sum(t.settled for t in tracks) if look else place, len(tracks))
            while len(track.pairs) < pairs and not track.settled:
                if clock() >= deadline:
                    track.why, track.settled = "the budget was used up", True
                    break
                _measure_pair(track, measure)
        # What all models show together is better known than the scatter of one.
        known = max(noise, pooled_noise([track.pairs for track in tracks]) or 0.0)
        for track in tracks:
            if len(track.pairs) == pairs:
                _look(track, limits(track.model), len(models), known)
    for track in tracks:
        if not track.settled:
            track.why = f"not known better after {2 * len(track.pairs)} processes"
        elif track.why and track.alarmed_after and not track.alarm:
            track.why = f"slower, but not confirmed by as many processes again: {track.why}"
    return tracks


def _look(track: Track, limit: float, models: int, noise: float) -> None:
    track.ratio = ratio_of(track.pairs, models=models, noise=max(noise, float(np.median(track.errors))))
    if not track.ratio.alarms(limit):
        track.alarmed_after = 0
        track.settled = track.ratio.settled(limit)
    elif not track.alarmed_after:
        track.alarmed_after = len(track.pairs)
    else:
        track.settled = track.alarm


def _measure_pair(track: Track, measure: Measures) -> None:
    """Two processes more; before the first pair, one of each side, which tell what is to be equal on both."""
    if not track.measured:
        _measure_alone(track, measure)
    while not track.settled:
        results = measure.in_turn(track.model, len(track.pairs), track.equal)
        failed = [f"side {side}: {result.reason}" for side, result in results.items() if not result.ok]
        if failed:
            track.why, track.settled = "; ".join(failed), True
            return
        smallest = min(result.batch_size or 1 for result in results.values())
        if smallest == track.equal["batch_size"]:
            ratio, error = paired_ratio(*(results[side].durations for side in "AB"))
            track.pairs.append(ratio)
            track.errors.append(error)
            for side, result in results.items():
                track.speeds[side].append(-math.log(np.median(result.durations)))
            return
        # Both at once have no room for what each had alone. What was measured with the larger batch is let go.
        track.equal["batch_size"] = smallest
        track.pairs.clear()
        track.errors.clear()
        track.speeds = {"A": [], "B": []}


def _measure_alone(track: Track, measure: Measures) -> None:
    for side in "AB":
        track.first[side] = measure.alone(side, track.model)
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
