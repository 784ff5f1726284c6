"""Measured durations, replayed into pytest-benchmark through its public timer argument."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any


class ReplayClock:
    """A clock that stands still unless it is told to advance, to be read by ``now``.

    pytest-benchmark takes the time before and after a round; the benchmarked function advances the clock by what was
    measured elsewhere, so the saved statistics are those of the real forward passes.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds on this clock."""
        return self._now

    def replay(self, benchmark: Any, durations: Sequence[float], images: int) -> None:
        """Drive the ``benchmark`` fixture with the seconds of each round, a forward pass of ``images`` images.

        A round is told as ``images`` iterations: pytest-benchmark then shows seconds an image, and its OPS column is
        images per second, comparable whatever the batch size. Where no forward pass was timed, pytest-benchmark, which
        knows no benchmark without a time, is told one round of 0 s, whose OPS it gives as 0.
        """
        if not durations:
            durations, images = (0.0,), 1
        steps = chain.from_iterable(repeat(duration / images, images) for duration in durations)

        def forward_of_one_image() -> None:
            # pytest-benchmark calls once more than the rounds need, to get the function's return value.
            self._now += next(steps, 0.0)

        self._now = 0.0
        benchmark.pedantic(forward_of_one_image, rounds=len(durations), iterations=images)


clock = ReplayClock()


def replayed_seconds() -> float:
    """The timer of every embedcore benchmark, named in the saved JSON."""
    return clock.now()
