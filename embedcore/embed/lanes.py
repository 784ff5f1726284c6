"""The devices as the pipeline uses them. What only a CUDA card can run is here and in timing.py, kept small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.normalise import as_tensor
from embedcore.embed.pipeline import Lane, Span

Read = Callable[[int, int], NDArray[np.uint8]]
Forward = Callable[[torch.Tensor], torch.Tensor]
"""From uint8 pixels [b, h, w, 3] to float32 embeddings [b, dim], both on the device."""


def lane_of(device: torch.device, read: Read, forward: Forward, batch_size: int) -> Lane:
    """The lane of a device for batches of at most ``batch_size`` images."""
    if device.type == "cuda":
        return CudaLane(device, read, forward, batch_size)
    return HostLane(device, read, forward)


class HostLane:
    """The CPU, which computes at once, and MPS, whose queue of work torch keeps.

    On the CPU pixels are memory-mapped views, and a thread that reads ahead would take its time from the cores that
    compute; so they are read inline there. On MPS the thread fills the time of the waiting.
    """

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
        rows: NDArray[np.float32] = fetched.cpu().numpy()
        return rows


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
        rows: NDArray[np.float32] = fetched.tensor.numpy()
        return rows


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Page-locked host memory, which a card copies from and to on its own; torch keeps freed blocks for later."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
