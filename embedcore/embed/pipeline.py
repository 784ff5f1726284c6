"""Reading, copying, computing and fetching at the same time: one loop for every device."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""The images start to stop - 1."""

Deliver = Callable[[Span, NDArray[np.float32]], None]


class Lane(Protocol):
    """A device as the pipeline sees it. ``upload``, ``compute`` and ``fetch`` begin something; only ``rows`` waits."""

    slots: int
    """Host buffers, which a thread fills ahead; 0 to read in the caller's thread, when a batch is wanted."""
    flying: int
    """Batches that may be on their way back while the next one is begun."""

    def host_buffer(self, span: Span, slot: int) -> Any:
        """The pixels of these images in host buffer ``slot``, which is filled when its last copy has ended."""

    def upload(self, host: Any, slot: int) -> Any:
        """Begin the copy to the device. Called in the thread that called ``host_buffer``."""

    def compute(self, batch: Any) -> Any:
        """Begin the forward pass, which waits for the copy."""

    def fetch(self, output: Any) -> Any:
        """Begin the copy of the embeddings to the host."""

    def rows(self, fetched: Any) -> NDArray[np.float32]:
        """Wait for that copy: float32 [b, dim]."""


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


def spans_of(start: int, total: int, size: int) -> Iterator[Span]:
    """The images from ``start`` on in batches of ``size``.

    >>> list(spans_of(1, 6, 2))
    [(1, 3), (3, 5), (5, 6)]
    """
    return ((begin, min(begin + size, total)) for begin in range(start, total, size))
