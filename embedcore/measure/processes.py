"""Processes of this machine: who descends from whom, and how to be rid of all of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

import psutil

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# How much the kernel's out-of-memory killer prefers a measuring process: as if it used half the machine's memory more.
_OOM_SCORE_ADJ = 500


def descendants(ancestor: int) -> list[int]:
    """The process ids of all descendants, zombies included; of no process, none.

    A process whose parent has died counts where the kernel has put it: below the nearest ancestor that adopts orphans.
    """
    try:
        return [process.pid for process in psutil.Process(ancestor).children(recursive=True)]
    except psutil.Error:  # it is gone
        return []


def kill(pid: int) -> None:
    """SIGKILL for one process, which may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """SIGKILL for the process group of ``leader``, which may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_tree(root: int) -> None:
    """SIGKILL for a process, all its descendants and their process groups."""
    for pid in (root, *descendants(root)):
        kill_group(pid)
        kill(pid)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, in place of init (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent, of process id ``parent``, is dead (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died before the kernel was told
        kill(os.getpid())


def be_first_to_run_out_of_memory() -> None:
    """Have the kernel's out-of-memory killer take this process before its parents (Linux)."""
    path = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        path.write_text(str(max(_OOM_SCORE_ADJ, int(path.read_text()))))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
