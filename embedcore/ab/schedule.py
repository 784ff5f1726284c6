"""Schedule the measurements: pairs of fresh processes on both sides, until each speed ratio is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from embedcore.compare.interleaved import LOOKS, NOISE, Interleaved, paired_ratio, pooled_noise, ratio_of, rounds_for
from embedcore.results.result import Result

Progress = Callable[[str, int, int], None]
"""Called with a model, the number of finished models, and the number of all models."""


GROUP = 8
"""Number of models that are measured in turn, so that they share the servers of a pair, which take seconds to start."""

OUT_OF_TIME = "the budget was used up"
"""`Track.why` of a model that was not finished."""


class Measures(Protocol):
    """Measures a model on the sides ``A`` and ``B``."""

    def alone(self, side: str, model: str) -> Result:
        """Measure on one side with its own settings."""

    def interleaved(self, model: str, number: int, equal: Mapping[str, Any]) -> Mapping[str, Result]:
        """Measure repetition `number` in fresh processes of both sides that alternate rounds, with settings `equal`.

        Successive calls with the same number may share servers; a call with another number starts new ones.
        """


@dataclass
class Track:
    """The measurements of one model so far."""

    model: str
    first: dict[str, Result] = field(default_factory=dict)
    """Each side's result with its own settings."""
    equal: dict[str, Any] = field(default_factory=dict)
    """Settings common to both sides, for equal work: batch size, precision, memory layout, rounds."""
    pairs: list[float] = field(default_factory=list)
    """Log ratio of each pair of processes."""
    errors: list[float] = field(default_factory=list)
    """Standard error of each log ratio, from its rounds."""
    speeds: dict[str, list[float]] = field(default_factory=lambda: {"A": [], "B": []})
    """Log of the rounds per second of each process."""
    ratio: Interleaved | None = None
    alarmed_after: int = 0
    """Number of pairs after which the current alarm began; 0 without an alarm."""
    settled: bool = False
    """Whether no more measurements are needed."""
    why: str = ""
    """Why there is no ratio, or a less precise one than required."""

    @property
    def alarm(self) -> bool:
        """Whether side B is slower by the limit, confirmed after twice as many pairs."""
        return bool(self.alarmed_after) and len(self.pairs) >= 2 * self.alarmed_after


def measure_models(
    models: Sequence[str],
    measure: Measures,
    limits: Callable[[str], float],
    *,
    noise: float = NOISE,
    seconds: float = float("inf"),
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Track]:
    """Measure each model until the interval of its ratio is narrower than its limit (a fraction of 1).

    All models get the pairs of the first look, then the unsettled models those of the next, in groups of `GROUP` whose
    models get their first pair, then their second one, each from new servers. So neither a disturbance of minutes nor
    the place of code and data in memory is the same in all pairs of a model, and a budget of `seconds` judges some
    models if it does not suffice for all. An alarm must persist when the number of pairs has doubled, also after the
    last look.
    """
    deadline = clock() + seconds
    tracks = [Track(model) for model in models]
    for look, pairs in enumerate((*LOOKS, *(2 * pairs for pairs in LOOKS if 2 * pairs > LOOKS[-1]))):
        asked = [track for track in tracks if pairs <= LOOKS[-1] or track.alarmed_after]
        for first in range(0, len(asked), GROUP):
            group = asked[first : first + GROUP]
            while due := [track for track in group if len(track.pairs) < pairs and not track.settled]:
                for track in due:
                    if clock() >= deadline:
                        track.why, track.settled = OUT_OF_TIME, True
                        continue
                    if progress is not None:
                        done = sum(t.settled for t in tracks) if look else tracks.index(track)
                        progress(track.model, done, len(tracks))
                    _measure_pair(track, measure)
        known = max(noise, pooled_noise([track.pairs for track in tracks]) or 0.0)
        for track in tracks:
            if len(track.pairs) == pairs:
                _look(track, limits(track.model), len(models), known)
    for track in tracks:
        if not track.settled:
            track.why = f"still uncertain after {2 * len(track.pairs)} processes"
        elif track.why and track.alarmed_after and not track.alarm:
            track.why = f"slower, but not confirmed by a second set of processes: {track.why}"
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
    """Measure one more pair; before the first, also one process of each side to find the common settings."""
    if not track.first:
        _measure_alone(track, measure)
    while not track.settled:
        results = measure.interleaved(track.model, len(track.pairs), track.equal)
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
        # Two processes share the memory: start again with the smaller batch.
        track.equal["batch_size"] = smallest
        for values in (track.pairs, track.errors, *track.speeds.values()):
            values.clear()


def _measure_alone(track: Track, measure: Measures) -> None:
    base, new = (track.first.setdefault(side, measure.alone(side, track.model)) for side in "AB")
    if not (base.ok and new.ok):
        track.settled = True
        track.why = "; ".join(result.reason for result in (base, new) if not result.ok)
        return
    track.equal = {
        "batch_size": min(base.batch_size or 1, new.batch_size or 1),
        "channels_last": base.channels_last,  # from a trial that a busy machine may disturb, so both use side A's
        "rounds": max(rounds_for(base.durations), rounds_for(new.durations)),
    }
    if base.precision == new.precision:
        track.equal["precision"] = base.precision
