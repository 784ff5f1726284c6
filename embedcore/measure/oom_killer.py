"""The kernel's out-of-memory killer: did it strike, and was the machine's memory nearly exhausted?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Less available memory than this share of the machine's is "nearly exhausted".
LITTLE = 0.05


def oom_kills(root: Path = Path("/")) -> int | None:
    """How often the kernel has killed a process for want of memory; None where it does not tell.

    Counted for this process's own control group, in which its children are too, so that other containers' troubles do
    not count (``memory.events`` of cgroup v2, ``memory.oom_control`` of v1); for the whole machine where there is none.
    """
    for path in (*_cgroup_files(root), root / "proc/vmstat"):
        counted = _field(path, "oom_kill")
        if counted is not None:
            return counted
    return None


def available_share(root: Path = Path("/")) -> float | None:
    """The share of the machine's memory that is available without swapping, 0–1; None where it is not told."""
    meminfo = root / "proc/meminfo"
    total, available = _field(meminfo, "MemTotal:"), _field(meminfo, "MemAvailable:")
    return None if not total or available is None else available / total


class MemoryWatch:
    """Looks after the machine's memory while a process runs; ``sample`` is to be called now and then."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._kills = oom_kills(root)
        self._least = available_share(root)

    def sample(self) -> None:
        """Note how much memory is available now: some 30 µs."""
        share = available_share(self._root)
        if share is not None and (self._least is None or share < self._least):
            self._least = share

    @property
    def killer_struck(self) -> bool:
        """Whether the out-of-memory killer has killed something since the watch began."""
        kills = oom_kills(self._root)
        return self._kills is not None and kills is not None and kills > self._kills

    @property
    def nearly_exhausted(self) -> bool:
        """Whether a sample has seen the machine's memory nearly exhausted."""
        return self._least is not None and self._least < LITTLE


def _cgroup_files(root: Path) -> Iterator[Path]:
    """Where this process's control group may count kills. In a container its own group may be mounted as the root."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if not controllers:
            yield mounts / inside / "memory.events"
            yield mounts / "memory.events"
        elif "memory" in controllers.split(","):
            yield mounts / "memory" / inside / "memory.oom_control"
            yield mounts / "memory/memory.oom_control"


def _field(path: Path, name: str) -> int | None:
    """The number behind a name in one of the kernel's files of ``name number`` lines."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for line in lines if (words := line.split())[:1] == [name]), None)
