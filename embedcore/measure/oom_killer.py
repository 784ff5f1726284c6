"""Whether a process died for want of memory: by the kernel's out-of-memory killer, or by its own last words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Less available memory than this share of the machine's is "nearly exhausted".
LITTLE = 0.05

# What the C and C++ libraries below torch print when they give up for want of memory, in place of an exception.
_LAST_WORDS = ("std::bad_alloc", "MemoryError", "Cannot allocate memory", "Thread creation failed", "cannot allocate")


def oom_kills(root: Path = Path("/")) -> int | None:
    """How often the kernel has killed a process for want of memory; None where it does not tell.

    Counted for this process's own control group, in which its children are too, so that other containers' troubles do
    not count (``memory.events`` of cgroup v2, ``memory.oom_control`` of v1); for the whole machine where there is none.
    """
    for path in (*_cgroup_files(root), root / "proc/vmstat"):
        for name, *number in map(str.split, _lines(path)):
            if name == "oom_kill":
                return int(number[0])
    return None


def available_share() -> float:
    """The share of the machine's memory that is available without swapping, 0–1."""
    memory = psutil.virtual_memory()
    return memory.available / memory.total


class MemoryWatch:
    """Looks after the machine's memory while a process runs; ``sample``, some 70 µs, is to be called now and then."""

    def __init__(self) -> None:
        self._kills = oom_kills()
        self._least = available_share()

    def sample(self) -> None:
        self._least = min(self._least, available_share())

    @property
    def killer_struck(self) -> bool:
        """Whether the out-of-memory killer has killed something since the watch began."""
        kills = oom_kills()
        return self._kills is not None and kills is not None and kills > self._kills

    @property
    def nearly_exhausted(self) -> bool:
        """Whether a sample has seen the machine's memory nearly exhausted."""
        return self._least < LITTLE


def ran_out(exit_code: int, last_words: str, *, limited: bool) -> bool:
    """Whether a process that died without an exception died for want of memory.

    An abort over ``std::bad_alloc`` says so itself; of a process whose memory was limited, other words do too.
    """
    if exit_code == -6 and "std::bad_alloc" in last_words:
        return True
    return limited and exit_code != 0 and any(words in last_words for words in _LAST_WORDS)


def _cgroup_files(root: Path) -> Iterator[Path]:
    """Where this process's control group may count kills. In a container its own group may be mounted as the root."""
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
    """The lines of one of the kernel's files, none where it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
