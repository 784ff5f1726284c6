"""Memory: out-of-memory errors, a limit per process, and the peak of a measurement."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import resource
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

from embedcore.embed.device import choose_device
from embedcore.errors import UsageError

T = TypeVar("T")

# Texts of RuntimeErrors: torch has an exception class only for devices, not for its CPU allocator or libraries.
_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

# Errors of oneDNN and Python that may have other causes, but hardly in a process with a memory limit.
_SIGNS_UNDER_A_LIMIT = ("could not create a primitive", "could not create a memory", "can't start new thread")

# Errors of CUDA libraries for tensors of more than 2^31 elements, in lower case. cuDNN raises the first two also
# without memory and for layers that it cannot compute, so with one image they are ordinary errors.
_TOO_LARGE = (
    "unable to find an engine",  # "GET was …" and "FIND was unable to find an engine to execute this computation"
    "unable to find a valid cudnn algorithm",
    "canuse32bitindexmath",
    "32-bit index math",
    "integer out of range",
)

SAMPLE_S = 0.02

# The share of the limit that is reserved until memory has run out once, see ``release_memory``.
RESERVE = 0.15


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that host or device memory ran out, by its type or its text."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY  # also by the user's `ulimit -d`
    signs = _SIGNS + _SIGNS_UNDER_A_LIMIT if limited else _SIGNS
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def fits_if_smaller(error: BaseException) -> bool:
    """Return whether a smaller batch may fit: memory ran out, or tensors exceed the kernels' 32-bit indices."""
    return is_out_of_memory(error) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _TOO_LARGE)
    )


def bound_memory(limit_gb: float) -> None:
    """Let this process allocate at most ``limit_gb`` (of 2^30 bytes) more than it has allocated so far (Linux only).

    The limit is RLIMIT_DATA, which counts private writable memory (the heap and anonymous maps), used or not, but not
    memory-mapped files such as a pixel store or weights, as RLIMIT_AS would. An allocation beyond the limit fails in
    this process only. At first 85 % are allowed: see ``RESERVE``.
    """
    if sys.platform != "linux":
        return
    # Start torch's threads first: a thread that cannot start ends the process without an exception.
    torch.ones(2**20).mul_(2)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(limit_gb * 2**30)
    most = wanted + psutil.Process().memory_info().data
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most - int(RESERVE * wanted), most))


def is_bounded(device: str) -> bool:
    """Return whether the limit applies to this device: only to the CPU, as it bounds host memory."""
    try:
        return choose_device(device).type == "cpu"
    except UsageError:  # the measurement raises it again
        return False


def release_memory(device: torch.device) -> None:
    """Release cached memory to the device or the kernel before a smaller batch is tried.

    Under a memory limit (Linux), half of the remaining reserve is allowed then: the heap has grown up to the limit and
    is mostly free, but maps outside of it would fail with any batch size.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        # glibc keeps freed blocks (see forkserver.py), which would leave no room for maps outside of the heap, such as
        # oneDNN's generated code.
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if resource.RLIM_INFINITY not in (soft, hard):
            resource.setrlimit(resource.RLIMIT_DATA, (soft + (hard - soft) // 2, hard))


def halving(batch_size: int, device: torch.device, step: Callable[[int], T]) -> tuple[T, int]:
    """Call ``step(batch_size)``, halving the size while it does not fit; return its value and the size that fitted.

    With one image the error is raised. Other errors are raised at once.
    """
    while True:
        try:
            return step(batch_size), batch_size
        except (RuntimeError, MemoryError, OSError) as error:
            if batch_size == 1 or not fits_if_smaller(error):
                raise
        # Outside of the except block, where the error and the tensors of its frames are freed.
        batch_size //= 2
        release_memory(device)


class PeakMemory:
    """Peak memory of a measurement in MB of 10^6 bytes, the field ``peak_memory_mb`` of a result.

    On CUDA: torch's peak allocation on the card, weights included, since the last :meth:`restart`. Timing calls it
    after the warm-up, so the peak excludes loading, canaries, cuDNN's trials of algorithms and batches that did not
    fit. Elsewhere: the largest growth of this process's private memory since the block began, sampled 50 times a second
    and when ``mb`` is read; pages of memory-mapped files, such as a pixel store, are not private.
    """

    def __init__(self, private_bytes: Callable[[], int] | None = None) -> None:
        self._private_bytes = private_bytes or _private_bytes
        self._card: torch.device | None = None
        self.excluded_bytes = 0
        """Memory that belongs to the measurement, not to the model."""
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
        """On CUDA, reset the peak: the timed forward passes on ``device`` begin."""
        if device.type == "cuda":
            self._ended.set()  # torch keeps the peak itself
            self._card = device
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def mb(self) -> float:
        """The peak so far."""
        if self._card is not None:
            return (torch.cuda.max_memory_allocated(self._card) - self.excluded_bytes) / 1e6
        self._update()
        return max(0, self._highest - self._start - self.excluded_bytes) / 1e6

    def _update(self) -> None:
        self._highest = max(self._highest, self._private_bytes())

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._update()


def _private_bytes() -> int:
    """Return the resident bytes of this process, on Linux without pages of files."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))
