"""Whether a process died from lack of memory: by the kernel's out-of-memory killer, or according to its output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# The machine's memory counts as nearly exhausted when less than this share of it is available.
_EXHAUSTED_SHARE = 0.05

# What C and C++ libraries below torch print instead of raising an exception when an allocation fails.
_LAST_WORDS = ("std::bad_alloc", "MemoryError", "Cannot allocate memory", "Thread creation failed", "cannot allocate")


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return the number of kills by the kernel's out-of-memory killer; None if unknown.

    Counted in this process's control group, which includes its children and no other container (``memory.events`` of
    cgroup v2, ``memory.oom_control`` of v1); on the whole machine if there is no such group.
    """
    for path in (*_cgroup_files(root), root / "proc/vmstat"):
        for name, *number in map(str.split, _lines(path)):
            if name == "oom_kill":
                return int(number[0])
    return None


def available_share() -> float:
    """Return the share of the machine's memory that is available without swapping, 0 to 1."""
    memory = psutil.virtual_memory()
    return memory.available / memory.total


class MemoryWatch:
    """Watches the machine's memory while a process runs; call ``sample`` (70 µs) from time to time."""

    def __init__(self) -> None:
        self._kills = oom_kills()
        self._least = available_share()

    def sample(self) -> None:
        self._least = min(self._least, available_share())

    @property
    def killer_struck(self) -> bool:
        """Whether the out-of-memory killer has killed a process since the watch began."""
        kills = oom_kills()
        return self._kills is not None and kills is not None and kills > self._kills

    @property
    def nearly_exhausted(self) -> bool:
        """Whether a sample has seen the machine's memory nearly exhausted."""
        return self._least < _EXHAUSTED_SHARE


def ran_out(exit_code: int, last_words: str, *, limited: bool) -> bool:
    """Whether a process that died without an exception ran out of memory.

    An abort over ``std::bad_alloc`` proves it; other messages do so only if the process's memory was limited.
    """
    if exit_code == -6 and "std::bad_alloc" in last_words:
        return True
    return limited and exit_code != 0 and any(words in last_words for words in _LAST_WORDS)


def _cgroup_files(root: Path) -> Iterator[Path]:
    """Yield files where this process's control group may count kills; a container may see its group as the root."""
    mounts = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if not controllers:
            yield mounts / inside / "memory.events"
            yield mounts / "memory.events"
        elif "memory" in controllers.split(","):
            yield mounts / "memory" / inside / "memory.oom_control"
            yield mounts / "memory/memory.oom_control"


def _lines(path: Path) -> list[str]:
    """Return the lines of a kernel file; none if it does not exist."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
