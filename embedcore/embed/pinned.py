"""One thread on one core: torch computes without the scheduler, other threads and barriers, so timings repeat well."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import torch

SECONDS = 2.0
"""Target duration of all rounds of a process."""

GMACS = 0.7
"""Work of one round, about 30 ms: the reference kernel can correct rounds that are shorter than a disturbance."""


def images_of_round(gmacs: float | None, batch_size: int) -> int:
    """Return the number of images of a round, from 1 to ``batch_size``: the same for a model in every session.

    >>> images_of_round(0.06, 16), images_of_round(17.6, 16), images_of_round(None, 16)
    (12, 1, 1)
    """
    return max(1, min(batch_size, round(GMACS / gmacs))) if gmacs else 1


def rounds_of(seconds: float, rounds: int) -> int:
    """Return how many rounds of ``seconds`` to time: about two seconds of them, at most six times ``rounds``.

    >>> rounds_of(0.03, 10), rounds_of(0.1, 10), rounds_of(9.0, 10)
    (60, 20, 5)
    """
    return max(min(rounds, 5), min(6 * rounds, round(SECONDS / seconds)))


@contextlib.contextmanager
def pinned_thread() -> Iterator[int | None]:
    """Give torch one thread, pinned to the last core that this process may use; yield the core.

    Yields None, and changes nothing, where a thread cannot be pinned (only Linux can, and a container may forbid it).
    """
    if sys.platform != "linux":
        yield None
        return
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    core = max(allowed)
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        yield None
        return
    torch.set_num_threads(1)
    try:
        yield core
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, allowed)
