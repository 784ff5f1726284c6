"""When a change of peak memory counts, by the device on which it was measured."""

from __future__ import annotations

LEAST_MEMORY_MB = 32.0


def memory_noise(old: float, new: float, device: str | None) -> float:
    """Return the largest difference of two figures in MB that is noise.

    On a card the allocator counts exactly. On the CPU the figure is the growth of a process, which differed by up to
    43 % between equal processes: only a factor of two counts.

    >>> memory_noise(500, 700, "cpu"), memory_noise(500, 700, "cuda:0")
    (500, 0.0)
    """
    return max(LEAST_MEMORY_MB, min(old, new)) if device == "cpu" else 0.0
