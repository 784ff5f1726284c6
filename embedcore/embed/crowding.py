"""Whether the timing rounds had the processor to themselves.

The kernel counts for each thread how long it was ready to run and waited for a core. One that has no core holds up all
that wait for it at the next barrier, so beside one busy loop all rounds become slow alike, and their scatter tells
nothing; this does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

_NS = 1e9
_TASKS = Path("/proc/self/task")

Waited = Mapping[str, int]
"""Nanoseconds that each thread of this process, by its id, has waited for a core so far."""


def waited(tasks: Path = _TASKS) -> Waited | None:
    """What the kernel has counted; None where it does not tell. (Linux's ``schedstat`` is: running, waiting, turns.)"""
    counted = {}
    with contextlib.suppress(OSError):  # no such file here, or a thread that has just ended
        for task in tasks.iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                counted[task.name] = int((task / "schedstat").read_text().split()[1])
    return counted or None


def crowding(before: Waited | None, after: Waited | None, wall_s: float) -> float | None:
    """Seconds that the threads together waited for a core, for each second of wall time; None where it is not known.

    0 is alone. Alone the work would have taken no less than 1 minus this of its wall time, since a second of waiting
    delays it by a second at most; the value itself may exceed 1 with many threads.

    >>> crowding({"1": 0, "2": 5_000_000}, {"1": 20_000_000, "2": 35_000_000, "3": 0}, 0.1)
    0.5
    """
    if before is None or after is None or wall_s <= 0:
        return None
    return sum(now - before.get(thread, 0) for thread, now in after.items()) / _NS / wall_s
