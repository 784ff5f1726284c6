"""A lock for each device: processes of this user that share a card, or the processor, never time at once."""

from __future__ import annotations

import os
import sys
import tempfile
import zlib
from pathlib import Path

import filelock
import torch


def device_lock(device: torch.device) -> filelock.BaseFileLock:
    """Return the lock of a device, for a ``with`` statement; the kernel releases it if its process dies.

    On the CPU the device is the set of cores that this process may use.
    """
    name = device.type
    if sys.platform == "linux" and device.type == "cpu":
        name = f"cpu-{zlib.crc32(repr(sorted(os.sched_getaffinity(0))).encode()):08x}"
    if device.type == "cuda":
        name = f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    user = os.getuid() if hasattr(os, "getuid") else 0
    return filelock.FileLock(Path(tempfile.gettempdir()) / f"embedcore-timing-{user}-{name}.lock")
