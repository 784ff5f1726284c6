"""Measured durations, replayed into pytest-benchmark through its public timer argument."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any


class ReplayClock:
    """A clock that advances only when set.

    pytest-benchmark reads it before and after a round; the benchmarked function advances it by a duration measured in
    the child process, so the saved statistics are those of the real forward passes.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the time in seconds."""
        return self._now

    def replay(self, benchmark: Any, durations: Sequence[float], images: int) -> None:
        """Drive the ``benchmark`` fixture with the seconds of each round, a forward pass of ``images`` images.

        A round has ``images`` iterations, so pytest-benchmark shows seconds per image, and its OPS are images per
        second at any batch size. A benchmark needs a time: without a timed forward pass it has one round of 0 s.
        """
        if not durations:
            durations, images = (0.0,), 1
        steps = chain.from_iterable(repeat(duration / images, images) for duration in durations)

        def forward_of_one_image() -> None:
            # pytest-benchmark calls once more than the rounds need, for the function's return value.
            self._now += next(steps, 0.0)

        self._now = 0.0
        benchmark.pedantic(forward_of_one_image, rounds=len(durations), iterations=images)


clock = ReplayClock()


def replayed_seconds() -> float:
    """Return the replayed time: the timer of all embedcore benchmarks, whose name is in the saved JSON."""
    return clock.now()
