"""Memory: telling an exhausted one, and the peak of a measurement."""

from __future__ import annotations

import sys

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that host or device memory ran out.

    torch has an exception of its own only for devices; its CPU allocator raises a RuntimeError that has to be told by
    its text.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator: can't allocate memory" in text
        or "DefaultCPUAllocator: not enough memory" in text
        or "out of memory" in text
        or "std::bad_alloc" in text
    )


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device before a smaller batch is tried."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory so far in MiB: allocated on the device for CUDA, resident of the whole process for the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
