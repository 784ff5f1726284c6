"""Memory: telling an exhausted one, and the peak of a measurement."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import sys

import torch

# torch has an exception of its own only for devices, and not for what the libraries below it meet; its CPU allocator
# raises a RuntimeError.
_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


# What oneDNN and Python say where an allocation fails. They say it on other occasions too, but hardly to a process
# whose memory is limited.
_SIGNS_UNDER_A_LIMIT = ("could not create a primitive", "could not create a memory", "can't start new thread")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that host or device memory ran out, told by its text where its type does not tell."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    signs = _SIGNS + _SIGNS_UNDER_A_LIMIT if memory_is_limited() else _SIGNS
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def memory_is_limited() -> bool:
    """Whether this process may allocate only so much (``measure/memory_limit.py``, or the user's ``ulimit -d``)."""
    if sys.platform == "win32":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device, or the kernel, before a smaller batch is tried."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        # glibc is told to keep freed blocks (see forkserver.py). Under a limit they would leave no room for what is
        # mapped outside of the heap, such as the code that oneDNN writes.
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
        _tap_reserve()


def _tap_reserve() -> None:
    """Where memory is limited, allow half of what the limit withholds.

    The heap has grown up to the limit, and most of it is free again but cannot be given back. What is mapped outside of
    it would find no room however small the batch.
    """
    if memory_is_limited():
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_DATA, (soft + (hard - soft) // 2, hard))


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory so far in MiB: allocated on the device for CUDA, resident of the whole process for the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
