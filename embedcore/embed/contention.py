"""Contention: how long threads waited for a core, and how long the hypervisor took cores away, while rounds were timed.

The kernel counts this time for each thread. A waiting thread delays all others at the next barrier. One busy loop thus
slows all rounds equally, and contention does not show in their scatter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

_NS = 1e9
_TASKS = Path("/proc/self/task")
_STAT = Path("/proc/stat")
_STEAL = 8  # field of a core's line: name user nice system idle iowait irq softirq steal
_FEWEST_TICKS = 10

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


def stolen_ticks(stat: Path = _STAT) -> int | None:
    """Read the clock ticks that the hypervisor has taken from the cores of this process so far; None if unknown."""
    with contextlib.suppress(OSError, AttributeError, ValueError, IndexError):
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = (line.split() for line in stat.read_text().splitlines())
        found = [int(line[_STEAL]) for line in lines if line and line[0] in names]
        return sum(found) if found else None
    return None


def steal(before: int | None, after: int | None, wall_s: float) -> float | None:
    """Return the seconds taken from all cores, summed, per second of wall time; None if unknown, and for rounds shorter
    than ten ticks of the kernel's clock."""
    ticks = os.sysconf("SC_CLK_TCK")
    if before is None or after is None or ticks <= 0 or wall_s * ticks < _FEWEST_TICKS:
        return None
    return max(0, after - before) / ticks / wall_s
