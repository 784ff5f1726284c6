"""An upper bound for the memory of this process, on the CPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from embedcore.embed.device import choose_device
from embedcore.errors import UsageError

# The share of the limit that is withheld until memory has run out once, see ``release_memory``.
RESERVE = 0.15

# What the C and C++ libraries below torch print when they give up for want of memory, in place of an exception.
_LAST_WORDS = ("std::bad_alloc", "MemoryError", "Cannot allocate memory", "Thread creation failed", "cannot allocate")


def bound_memory(limit_gb: float) -> None:
    """Let this process allocate at most ``limit_gb`` (of 2^30 bytes) more than it has allocated by now (Linux).

    Counted as the kernel counts for RLIMIT_DATA: memory that is private and writable (the heap and anonymous maps),
    from when it is allocated, touched or not. Files that are mapped, such as a pixel store or weights, do not count,
    which they would for RLIMIT_AS. An allocation beyond the limit fails in the process; nothing else is affected.
    At first only 85 % are allowed: see ``RESERVE``.
    """
    if sys.platform != "linux":
        return
    # The threads of torch's pool come first: one that cannot be started ends the process without an exception.
    torch.ones(2**20).mul_(2)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(limit_gb * 2**30)
    lines = Path("/proc/self/status").read_text().splitlines()
    most = wanted + next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("VmData:"))
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most - int(RESERVE * wanted), most))


def is_bounded(device: str) -> bool:
    """Whether the limit is for a case of this device: with CUDA or MPS, memory on the host is not what counts."""
    try:
        return choose_device(device).type == "cpu"
    except UsageError:  # which the measurement itself is going to raise, with what to do about it
        return False


def ran_out(exit_code: int, last_words: str, *, limited: bool) -> bool:
    """Whether a process that died without an exception died for want of memory.

    An abort over ``std::bad_alloc`` says so itself; of a process whose memory was limited, other words do too.
    """
    if exit_code == -6 and "std::bad_alloc" in last_words:
        return True
    return limited and exit_code != 0 and any(words in last_words for words in _LAST_WORDS)
