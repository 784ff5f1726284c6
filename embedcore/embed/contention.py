"""Contention: how long threads waited for a core while rounds were timed.

The kernel counts this time for each thread. A waiting thread delays all others at the next barrier, so beside one busy
loop all rounds are equally slow: contention does not show in their scatter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

_NS = 1e9
_TASKS = Path("/proc/self/task")

WaitingTimes = Mapping[str, int]
"""Nanoseconds that each thread of this process has waited for a core so far, by thread id."""


def waiting_times(tasks: Path = _TASKS) -> WaitingTimes | None:
    """Read the waiting times from Linux's ``schedstat`` (running, waiting, time slices); None if they are unknown."""
    counted = {}
    with contextlib.suppress(OSError):  # no such file here, or a thread that has just ended
        for task in tasks.iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                counted[task.name] = int((task / "schedstat").read_text().split()[1])
    return counted or None


def contention(before: WaitingTimes | None, after: WaitingTimes | None, wall_s: float) -> float | None:
    """Return the seconds that all threads waited for a core, per second of wall time; None if unknown.

    0 means no contention. A second of waiting delays the work by at most a second, so alone it would have taken at
    least 1 minus this share of its wall time. The value may exceed 1 with many threads.

    >>> contention({"1": 0, "2": 5_000_000}, {"1": 20_000_000, "2": 35_000_000, "3": 0}, 0.1)
    0.5
    """
    if before is None or after is None or wall_s <= 0:
        return None
    return sum(now - before.get(thread, 0) for thread, now in after.items()) / _NS / wall_s
