"""Memory: telling an exhausted one, a limit for it, and the peak of a measurement."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from embedcore.embed.device import choose_device
from embedcore.errors import UsageError

T = TypeVar("T")

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

# What CUDA libraries say of tensors of more than 2^31 elements, in lower case. cuDNN says the first two also for want
# of memory, and of layers that it cannot compute at all: so with one image they are errors like any other.
_TOO_LARGE = (
    "unable to find an engine",  # "GET was …" and "FIND was unable to find an engine to execute this computation"
    "unable to find a valid cudnn algorithm",
    "canuse32bitindexmath",
    "32-bit index math",
    "integer out of range",
)

SAMPLE_S = 0.02

# The share of the limit that is withheld until memory has run out once, see ``release_memory``.
RESERVE = 0.15


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that host or device memory ran out, told by its text where its type does not tell."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY  # also by the user's `ulimit -d`
    signs = _SIGNS + _SIGNS_UNDER_A_LIMIT if limited else _SIGNS
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def fits_if_smaller(error: BaseException) -> bool:
    """Whether a smaller batch may do: memory ran out, or tensors are too large for the kernels' 32-bit indices."""
    return is_out_of_memory(error) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _TOO_LARGE)
    )


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


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device, or the kernel, before a smaller batch is tried.

    On Linux, where memory is limited, half of what the limit withholds is allowed then: the heap has grown up to the
    limit and is mostly free again, but what is mapped outside of it would find no room however small the batch.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        # glibc is told to keep freed blocks (see forkserver.py). Under a limit they would leave no room for what is
        # mapped outside of the heap, such as the code that oneDNN writes.
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if resource.RLIM_INFINITY not in (soft, hard):
            resource.setrlimit(resource.RLIMIT_DATA, (soft + (hard - soft) // 2, hard))


def halving(batch_size: int, device: torch.device, step: Callable[[int], T]) -> tuple[T, int]:
    """``step(batch_size)``, or with half of it as often as that is too much; gives its value and the size that fitted.

    With one image the error is raised, as is every other error at once.
    """
    while True:
        try:
            return step(batch_size), batch_size
        except (RuntimeError, MemoryError, OSError) as error:
            if batch_size == 1 or not fits_if_smaller(error):
                raise
        # Out here the error, and with it every tensor of the step's frames, is gone.
        batch_size //= 2
        release_memory(device)


class PeakMemory:
    """The peak memory of a measurement, in MB of 10^6 bytes: what the field ``peak_memory_mb`` of a result holds.

    On CUDA: the most that torch had allocated on the card, weights included, since the last :meth:`restart`, which is
    called when the rounds that are timed begin: what loading, the canaries, cuDNN's trials of algorithms and batches
    that did not fit had needed is forgotten. Elsewhere: the growth of this process's private memory since the block
    began, at its highest; pages of memory-mapped files, such as a pixel store, are not private. It is looked at 50
    times a second and whenever ``mb`` is asked for. Where the system has no /proc, it is the growth of the resident
    peak.
    """

    def __init__(self, private_bytes: Callable[[], int] | None = None) -> None:
        self._private_bytes = private_bytes or _private_bytes
        self._card: torch.device | None = None
        self._start = self._highest = self._private_bytes()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="embedcore-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._sampler.join()

    def restart(self, device: torch.device) -> None:
        """On CUDA, forget the peak so far: the forward passes on ``device`` that count begin."""
        if device.type == "cuda":
            self._card = device
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def mb(self) -> float:
        """The peak so far."""
        if self._card is not None:
            return torch.cuda.max_memory_allocated(self._card) / 1e6
        self._look()
        return (self._highest - self._start) / 1e6

    def _look(self) -> None:
        self._highest = max(self._highest, self._private_bytes())

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._look()


def _private_bytes() -> int:
    """Resident memory of this process that is no page of a file; its resident peak where there is no /proc."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 2**10
    return (int(resident) - int(shared)) * resource.getpagesize()
