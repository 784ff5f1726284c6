"""Reading, copying, computing and fetching at the same time: one loop, and the devices as it sees them.

What only a CUDA card can run is here and in timing.py, kept small.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.normalise import as_tensor

Span = tuple[int, int]
"""The images start to stop - 1."""

Deliver = Callable[[Span, NDArray[np.float32]], None]

Read = Callable[[int, int], NDArray[np.uint8]]
Forward = Callable[[torch.Tensor], torch.Tensor]
"""From uint8 pixels [b, h, w, 3] to float32 embeddings [b, dim], both on the device."""


class Lane(Protocol):
    """A device as the pipeline sees it. ``upload``, ``compute`` and ``fetch`` begin something; only ``rows`` waits."""

    slots: int
    """Host buffers, which a thread fills ahead; 0 to read in the caller's thread, when a batch is wanted."""
    flying: int
    """Batches that may be on their way back while the next one is begun."""
    equal: bool
    """Whether the last batch is to be as large as the others, so that it takes in some images again."""

    def host_buffer(self, span: Span, slot: int) -> Any:
        """The pixels of these images in host buffer ``slot``, which is filled when its last copy has ended."""

    def upload(self, host: Any, slot: int) -> Any:
        """To the device, in the thread that called ``host_buffer``."""

    def compute(self, batch: Any) -> Any: ...

    def fetch(self, output: Any) -> Any: ...

    def rows(self, fetched: Any) -> NDArray[np.float32]:
        """Wait for what was fetched: float32 [b, dim]."""


def run(lane: Lane, spans: Sequence[Span], deliver: Deliver) -> None:
    """Take all spans through the lane and hand over the rows of each, in order, from the caller's thread.

    Whatever a stage, the reading thread or ``deliver`` raises ends the loop and is raised, after the thread has ended.
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
    """As ``_inline``, from a thread that goes ahead as far as there are free slots."""
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
        except BaseException as error:  # goes to the caller, traceback and all
            ready.put(error)

    thread = threading.Thread(target=read, name="embedcore-reader", daemon=True)
    thread.start()
    try:
        for span in spans:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            batch, slot = item
            # A slot is free again when its batch's computing has begun, which is when the next one is asked for.
            yield span, batch
            free.put(slot)
    finally:
        stopped.set()
        free.put(None)
        thread.join()


def spans_of(start: int, total: int, size: int, *, equal: bool = False) -> Iterator[Span]:
    """The images from ``start`` on in batches of ``size``: of 1, 6 and 2, (1, 3), (3, 5) and (5, 6), or with ``equal``
    (4, 6) as the last."""
    latest = total - size if equal else total
    return ((min(begin, latest), min(begin + size, total)) for begin in range(start, total, size))


def lane_of(device: torch.device, read: Read, forward: Forward, batch_size: int) -> Lane:
    """The lane of a device for batches of at most ``batch_size`` images."""
    cuda = device.type == "cuda"
    return CudaLane(device, read, forward, batch_size) if cuda else HostLane(device, read, forward)


class HostLane:
    """The CPU, which computes at once, and MPS, whose queue of work torch keeps.

    On the CPU pixels are memory-mapped views, and a thread that reads ahead would take its time from the cores that
    compute; so they are read inline there. On MPS the thread fills the time of the waiting.
    """

    equal = False

    def __init__(self, device: torch.device, read: Read, forward: Forward) -> None:
        self.slots = self.flying = 0 if device.type == "cpu" else 2
        self._device, self._read, self._forward = device, read, forward

    def host_buffer(self, span: Span, slot: int) -> torch.Tensor:
        return as_tensor(self._read(*span))

    def upload(self, host: torch.Tensor, slot: int) -> torch.Tensor:
        return host.to(self._device)

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
    """A CUDA card: three pinned buffers, and a side stream for each direction, so that copies run beside the computing.

    Another stream, or the host, waits for an event before it uses a tensor; ``record_stream`` keeps the memory of a
    tensor from being used anew before the streams that it was not made on are done with it.
    """

    slots = 3
    flying = 2
    equal = True  # cuDNN tries its algorithms anew for each shape: seconds, where a batch takes milliseconds

    def __init__(self, device: torch.device, read: Read, forward: Forward, batch_size: int) -> None:
        self._device, self._read, self._forward, self._batch_size = device, read, forward, batch_size
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._buffers: list[torch.Tensor | None] = [None] * self.slots
        self._copied = [torch.cuda.Event() for _ in range(self.slots)]

    def host_buffer(self, span: Span, slot: int) -> torch.Tensor:
        torch.cuda.set_device(self._device)  # of this thread, or pinned memory is got through the first card
        pixels = self._read(*span)
        buffer = self._buffers[slot]
        if buffer is None:
            buffer = self._buffers[slot] = pinned((self._batch_size, *pixels.shape[1:]), torch.uint8)
        self._copied[slot].synchronize()
        host = buffer[: len(pixels)]
        host.numpy()[...] = pixels
        return host

    def upload(self, host: torch.Tensor, slot: int) -> Ordered:
        with torch.cuda.stream(self._up):
            batch = torch.empty_like(host, device=self._device, pin_memory=False).copy_(host, non_blocking=True)
            self._copied[slot].record(self._up)
        return Ordered(batch, self._copied[slot])

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
    """Page-locked host memory, which a card copies from and to on its own; torch keeps freed blocks for later."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
