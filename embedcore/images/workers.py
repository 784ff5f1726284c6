"""The work on a pixel store, block by block: decode, transform, write; in this process or in workers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import types
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from embedcore.errors import EmbedcoreError
from embedcore.forkserver import forkserver_context, start_surely
from embedcore.images.decode import BadImageError
from embedcore.images.sources import ImageSource

if TYPE_CHECKING:
    from embedcore.images.geometry import Geometry

BLOCK = 32  # images: the unit of work and of the checksums


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class PixelReader:
    """Gives the pixels of a dataset's images in one geometry, each made when asked for."""

    source: ImageSource
    digests: tuple[str, ...]
    """Content digest of each image, as it was when the dataset was loaded."""
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: height, width, 3."""
        return self.geometry.height, self.geometry.width, 3

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """uint8 [h, w, 3].

        Raises BadImageError for an image that cannot be read, or has changed since the dataset was loaded.
        """
        name = self.source.name(index)
        try:
            return self.geometry.transform()(self.source.load(index, self.digests[index]))
        except OSError as error:
            raise BadImageError(name, error.strerror or str(error)) from error
        except (ValueError, MemoryError, OverflowError) as error:  # such as one pixel high and a million wide
            raise BadImageError(name, f"it cannot be resized ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class WrittenBlock:
    """What became of the images start to stop - 1."""

    start: int
    stop: int
    checksum: int
    """CRC-32 of the block's pixels."""
    bad: tuple[tuple[str, str], ...]
    """Name and reason of the images that could not be read."""


def blocks_of(total: int) -> list[tuple[int, int]]:
    """Start and stop of each block."""
    return [(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK)]


def write_block(reader: PixelReader, path: Path, offset: int, start: int, stop: int) -> WrittenBlock:
    """Make the pixels of a block and write them at their place in the file, whose rows begin at byte ``offset``.

    Written with ``write``, not through a memory map: on a full disk a map kills the process (SIGBUS) where this raises
    OSError.
    """
    rows = np.zeros((stop - start, *reader.shape), np.uint8)
    bad = []
    for index in range(start, stop):
        try:
            rows[index - start] = reader.pixels(index)
        except BadImageError as error:
            bad.append((error.name, error.reason))
    with path.open("r+b") as file:
        file.seek(offset + start * rows[0].nbytes)
        file.write(rows.data)
    return WrittenBlock(start, stop, zlib.crc32(rows.data), tuple(bad))


def write_blocks(
    reader: PixelReader, path: Path, offset: int, blocks: list[tuple[int, int]], workers: int
) -> Generator[WrittenBlock, None, None]:
    """Have worker processes write the blocks into the file; yields each as it is done, in no fixed order.

    Raises OSError as the workers met it while writing (no space left, …) and EmbedcoreError with the range of images
    and the worker's traceback or signal where a worker failed otherwise; StartError where none can be started. The
    workers are gone when the iterator ends or is closed.
    """
    todo = deque(blocks)
    crew: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(workers, len(blocks))):
            worker = start_surely(lambda: _Worker(forkserver_context(), reader, path, offset))
            crew[worker.connection] = worker
            worker.hand(todo.popleft())
        while busy := [worker.connection for worker in crew.values() if worker.block]:
            for connection in wait(busy):
                worker = crew[cast(Connection, connection)]
                yield worker.take()
                if todo:
                    worker.hand(todo.popleft())
    finally:
        for worker in crew.values():
            worker.dismiss()


class _Worker:
    """One process and the block that it has in hand."""

    def __init__(self, context: ForkServerContext, reader: PixelReader, path: Path, offset: int) -> None:
        self.block: tuple[int, int] | None = None
        self._reader = reader
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, reader, path, offset), name="embedcore-pixels", daemon=True
        )
        # Where it cannot be started, our end of the pipe is closed as the object is let go.
        with theirs, hidden_main(keep=type(reader.source).__module__ == "__main__"):
            self._process.start()

    def hand(self, block: tuple[int, int]) -> None:
        """Give the worker a block; a worker that is dead already is noticed by :meth:`take`."""
        self.block = block
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(block)

    def take(self) -> WrittenBlock:
        """The worker's answer for its block."""
        assert self.block is not None
        start, stop = self.block
        first, last = (self._reader.source.name(index) for index in (start, stop - 1))
        names = f"images {start} to {stop - 1} ({first!r} to {last!r})"
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            manner = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise EmbedcoreError(f"a worker died ({manner}) while decoding {names}") from error
        self.block = None
        if isinstance(answer, OSError):
            raise answer
        if isinstance(answer, str):
            raise EmbedcoreError(f"a worker failed while decoding {names}:\n{answer}")
        assert isinstance(answer, WrittenBlock)
        return answer

    def dismiss(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, reader: PixelReader, path: Path, offset: int) -> None:
    """The worker's main loop: a block comes in, its outcome goes out; ends when the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    answer: WrittenBlock | OSError | str
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            start, stop = connection.recv()
            try:
                answer = write_block(reader, path, offset, start, stop)
            except OSError as error:
                answer = error
            except Exception:
                answer = traceback.format_exc()
            connection.send(answer)


@contextlib.contextmanager
def hidden_main(*, keep: bool = False) -> Iterator[None]:
    """Keep a starting child from running the user's script again, where it would look for what was pickled from there.

    A script without a main guard would start all its work once more in each child. ``keep``: do not hide it, since the
    child needs something that is defined there.
    """
    main = sys.modules["__main__"]
    if not keep:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
