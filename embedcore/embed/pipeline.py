"""The embedding pipeline: read, copy, compute and fetch batches concurrently, in a lane for each kind of device."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.normalise import as_tensor

Span = tuple[int, int]
"""The images start to stop - 1."""

Deliver = Callable[[Span, NDArray[np.float32]], None]

Read = Callable[[int, int], NDArray[np.uint8]]
Normalise = Callable[[torch.Tensor], torch.Tensor]
"""Return the backbone's input [b, 3, h, w] for uint8 pixels [b, h, w, 3], both on the device."""
Forward = Callable[[torch.Tensor], torch.Tensor]
"""Compute float32 embeddings [b, dim] of the backbone's input, both on the device."""

_COPIERS = 4
"""Threads that copy a batch from the page cache to pinned memory; one thread fills about a tenth of PCIe."""


class Lane(Protocol):
    """The pipeline's interface to a device. ``upload``, ``compute`` and ``fetch`` are asynchronous; ``rows`` waits."""

    slots: int
    """Number of host buffers that a thread fills ahead; 0 to read each batch in the caller's thread."""
    flying: int
    """Number of batches that may be in flight when the next one begins."""
    equal: bool
    """Whether the last batch is as large as the others, with some images embedded twice."""

    def host_buffer(self, span: Span, slot: int) -> Any:
        """Read the pixels of these images into host buffer ``slot``, after its last copy has ended."""

    def upload(self, host: Any, slot: int) -> Any:
        """Copy to the device and normalise, in the thread that called ``host_buffer``."""

    def compute(self, batch: Any) -> Any: ...

    def fetch(self, output: Any) -> Any: ...

    def rows(self, fetched: Any) -> NDArray[np.float32]:
        """Wait for the fetched rows: float32 [b, dim]."""


def run(lane: Lane, spans: Sequence[Span], deliver: Deliver) -> None:
    """Run all spans through the lane and deliver the rows of each, in order, in the caller's thread.

    An error of any stage, the reading thread or ``deliver`` is raised after the thread has ended.
    """
    flying: deque[tuple[Span, Any]] = deque()

    def land() -> None:
        span, fetched = flying.popleft()
        deliver(span, lane.rows(fetched))

    with contextlib.closing(_ahead(lane, spans) if lane.slots else _inline(lane, spans)) as batches:
        for span, batch in batches:
            flying.append((span, lane.fetch(lane.compute(batch))))
            if len(flying) > lane.flying:
                land()
        while flying:
            land()


def _inline(lane: Lane, spans: Sequence[Span]) -> Generator[tuple[Span, Any], None, None]:
    for span in spans:
        yield span, lane.upload(lane.host_buffer(span, 0), 0)


def _ahead(lane: Lane, spans: Sequence[Span]) -> Generator[tuple[Span, Any], None, None]:
    """Yield as ``_inline`` does, reading ahead in a thread while there are free slots."""
    free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[tuple[Any, int] | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()
    for slot in range(lane.slots):
        free.put(slot)

    def read() -> None:
        try:
            for span in spans:
                slot = free.get()
                if slot is None or stopped.is_set():
                    return
                ready.put((lane.upload(lane.host_buffer(span, slot), slot), slot))
        except BaseException as error:  # raised in the caller's thread
            ready.put(error)

    thread = threading.Thread(target=read, name="embedcore-reader", daemon=True)
    thread.start()
    try:
        for span in spans:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            batch, slot = item
            # The slot is free when its batch is being computed: when the caller asks for the next one.
            yield span, batch
            free.put(slot)
    finally:
        stopped.set()
        free.put(None)
        thread.join()


def spans_of(start: int, total: int, size: int, *, equal: bool = False) -> Iterator[Span]:
    """Yield the images from ``start`` to ``total`` in batches of ``size``.

    ``spans_of(1, 6, 2)`` yields (1, 3), (3, 5) and (5, 6), or with ``equal`` (4, 6) as the last.
    """
    latest = total - size if equal else total
    return ((min(begin, latest), min(begin + size, total)) for begin in range(start, total, size))


def lane_of(device: torch.device, read: Read, normalise: Normalise, forward: Forward, batch_size: int) -> Lane:
    """Return the lane of a device for batches of at most ``batch_size`` images."""
    if device.type == "cuda":
        return CudaLane(device, read, normalise, forward, batch_size)
    return HostLane(device, read, normalise, forward)


class HostLane:
    """The CPU, which computes synchronously, and MPS, whose queue torch keeps.

    On the CPU pixels are memory-mapped views, read inline: a thread that reads ahead would compete with the computing
    threads. On MPS it uses the waiting time.
    """

    equal = False

    def __init__(self, device: torch.device, read: Read, normalise: Normalise, forward: Forward) -> None:
        self.slots = self.flying = 0 if device.type == "cpu" else 2
        self._device, self._read, self._normalise, self._forward = device, read, normalise, forward

    def host_buffer(self, span: Span, slot: int) -> torch.Tensor:
        return as_tensor(self._read(*span))

    def upload(self, host: torch.Tensor, slot: int) -> torch.Tensor:
        return self._normalise(host.to(self._device))

    def compute(self, batch: torch.Tensor) -> torch.Tensor:
        return self._forward(batch)

    def fetch(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def rows(self, fetched: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(fetched.cpu())


class Ordered(NamedTuple):
    """A tensor and the event after which it may be used."""

    tensor: torch.Tensor
    done: Any


class CudaLane:
    """A CUDA card: three pinned buffers and a side stream for each direction, so that copies overlap with computing.

    Another stream, or the host, waits for an event before it uses a tensor. ``record_stream`` keeps a tensor's memory
    from being reused before the other streams are done with it.
    """

    slots = 3
    flying = 2
    equal = True  # cuDNN tries algorithms for each shape: seconds, while a batch takes milliseconds

    def __init__(
        self, device: torch.device, read: Read, normalise: Normalise, forward: Forward, batch_size: int
    ) -> None:
        self._device, self._read, self._batch_size = device, read, batch_size
        self._normalise, self._forward = normalise, forward
        self._copiers = ThreadPoolExecutor(_COPIERS, thread_name_prefix="embedcore-copier")
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._buffers: list[torch.Tensor | None] = [None] * self.slots
        self._copied = [torch.cuda.Event() for _ in range(self.slots)]

    def host_buffer(self, span: Span, slot: int) -> torch.Tensor:
        torch.cuda.set_device(self._device)  # for this thread: else the first card would allocate the pinned memory
        pixels = self._read(*span)
        buffer = self._buffers[slot]
        if buffer is None:
            buffer = self._buffers[slot] = pinned((self._batch_size, *pixels.shape[1:]), torch.uint8)
        self._copied[slot].synchronize()
        host = buffer[: len(pixels)]
        target = host.numpy()
        rows = -(-len(pixels) // _COPIERS)
        parts = [slice(begin, begin + rows) for begin in range(0, len(pixels), rows)]
        list(self._copiers.map(lambda part: np.copyto(target[part], pixels[part]), parts))
        return host

    def upload(self, host: torch.Tensor, slot: int) -> Ordered:
        with torch.cuda.stream(self._up):
            pixels = torch.empty_like(host, device=self._device, pin_memory=False).copy_(host, non_blocking=True)
            self._copied[slot].record(self._up)
            batch = self._normalise(pixels)
            done = torch.cuda.Event()
            done.record(self._up)
        return Ordered(batch, done)

    def compute(self, batch: Ordered) -> Ordered:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(batch.done)
        batch.tensor.record_stream(stream)
        output = self._forward(batch.tensor)
        done = torch.cuda.Event()
        done.record(stream)
        return Ordered(output, done)

    def fetch(self, output: Ordered) -> Ordered:
        host = pinned(output.tensor.shape, output.tensor.dtype)
        self._down.wait_event(output.done)
        done = torch.cuda.Event()
        with torch.cuda.stream(self._down):
            host.copy_(output.tensor, non_blocking=True)
            output.tensor.record_stream(self._down)
            done.record(self._down)
        return Ordered(host, done)

    def rows(self, fetched: Ordered) -> NDArray[np.float32]:
        fetched.done.synchronize()
        return np.asarray(fetched.tensor)


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return page-locked host memory, which a card copies asynchronously; torch caches freed blocks."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
