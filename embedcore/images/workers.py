"""Building a pixel store block by block (decode, transform, write), in this process or in workers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import types
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedcore.errors import EmbedcoreError
from embedcore.forkserver import exit_words, forkserver_context, start_surely
from embedcore.images.decode import BadImageError, ImageUnavailable, elongation_refusal, reason_of
from embedcore.images.retries import retried
from embedcore.images.sources import ImageSource
from embedcore.images.unfinished_store import UnfinishedStore
from embedcore.messages import GarbledMessageError, Inbox, send
from embedcore.plain import one_line

if TYPE_CHECKING:
    from embedcore.images.geometry import Geometry

_PIECE = 2**16  # bytes of a worker's answer read at once
_RUN = 8  # consecutive blocks for one worker, so that few workers decode the same row group of a Parquet file


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class PixelReader:
    """Decodes a dataset's images in one geometry."""

    source: ImageSource
    digests: Sequence[str]
    """Content digest of each image when the dataset was loaded."""
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        return self.geometry.height, self.geometry.width, 3

    def part(self, start: int, stop: int) -> PixelReader:
        """Return a reader of images start to stop - 1."""
        return self.of(self.source.select(range(start, stop)).items, self.digests[start:stop])

    def of(self, items: Sequence[Any], digests: Sequence[str]) -> PixelReader:
        """Return a reader of other items of the source."""
        return replace(self, source=replace(self.source, items=items), digests=digests)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels of an image: uint8 [h, w, 3].

        Raises BadImageError for an image that cannot be read or has changed since the dataset was loaded,
        EmbedcoreError for a size that this geometry cannot scale, and ImageUnavailable for transient errors.
        """
        name = self.source.name(index)
        image = self.source.load(index, self.digests[index])
        if reason := elongation_refusal(*image.size):
            raise BadImageError(name, reason)
        try:
            return retried(lambda: self.geometry.transform()(image))
        except MemoryError as error:
            raise ImageUnavailable(name, reason_of(error)) from error
        except (ValueError, OverflowError) as error:  # such as a side of 0 pixels
            size = f"{image.width} x {image.height} pixels"
            raise EmbedcoreError(
                f"image {name!r} of {size} cannot be scaled for geometry {self.geometry.key}: {reason_of(error)}"
            ) from error


@dataclass(frozen=True)
class WrittenBlock:
    """The result of writing images start to stop - 1."""

    start: int
    stop: int
    bad: tuple[tuple[str, str], ...]
    """Name and reason of each image that could not be read."""


def write_block(reader: PixelReader, store: UnfinishedStore, start: int) -> WrittenBlock:
    """Decode a reader's images and write them as the block that begins with image ``start`` of the store.

    Raises EmbedcoreError for an image that may be sound but cannot be read now.
    """
    rows = np.zeros((len(reader), *reader.shape), np.uint8)
    bad = []
    for row in range(len(reader)):
        try:
            rows[row] = reader.pixels(row)
        except BadImageError as error:
            bad.append((error.name, error.reason))
    retried(lambda: store.write(start, rows, complete=not bad))
    return WrittenBlock(start, start + len(reader), tuple(bad))


def write_blocks(
    reader: PixelReader, store: UnfinishedStore, blocks: list[tuple[int, int]], workers: int
) -> Generator[WrittenBlock, None, None]:
    """Write the blocks into the store by worker processes; yield each block when it is done, in any order.

    Raises OSError for errors while writing (no space left, …), EmbedcoreError for an image that cannot be read now or a
    worker that failed (with its images and its traceback or signal), and StartError if no worker can be started. The
    workers have ended when the iterator ends or is closed.
    """
    todo = deque(blocks)
    crew: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(workers, len(blocks))):
            worker = start_surely(lambda: _Worker(reader, store))
            crew[worker.connection] = worker
            worker.go_on(todo, len(crew))
        while busy := [worker.connection for worker in crew.values() if worker.block]:
            for connection in wait(busy):
                worker = crew[cast(Connection, connection)]
                written = worker.take()
                if written is None:
                    continue
                yield written
                worker.go_on(todo, len(crew))
    finally:
        for worker in crew.values():
            worker.dismiss()


class _Worker:
    """A worker process and its current block. It gets the items of each block with it, not those of all images."""

    def __init__(self, reader: PixelReader, store: UnfinishedStore) -> None:
        context = forkserver_context()
        self.block: tuple[int, int] | None = None
        self._run = deque[tuple[int, int]]()
        self._inbox = Inbox()
        self._reader = reader
        self.connection, child_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child_end, reader.of((), ()), store), name="embedcore-pixels", daemon=True
        )
        # If the start fails, our end of the pipe is closed with this object.
        with child_end, hidden_main(keep=type(reader.source).__module__ == "__main__"):
            self._process.start()

    def go_on(self, todo: deque[tuple[int, int]], workers: int) -> None:
        """Give the worker its next block, if there is one; :meth:`take` notices a dead worker."""
        if not self._run:
            some = min(_RUN, -(-len(todo) // (2 * workers)))
            self._run.extend(todo.popleft() for _ in range(some))
        self.block = self._run.popleft() if self._run else None
        if self.block:
            part = self._reader.part(*self.block)
            with contextlib.suppress(BrokenPipeError):
                self.connection.send((self.block[0], part.source.items, part.digests))

    def take(self) -> WrittenBlock | None:
        """Read more of the worker's answer and return it; None until it is complete."""
        assert self.block is not None
        start, stop = self.block
        first, last = (self._reader.source.name(index) for index in (start, stop - 1))
        names = f"images {start} to {stop - 1} ({first!r} to {last!r})"
        try:
            piece = os.read(self.connection.fileno(), _PIECE)
        except ConnectionResetError:
            piece = b""
        if not piece:
            self._process.join()
            raise EmbedcoreError(f"a worker {exit_words(self._process.exitcode)} while decoding {names}")
        try:
            answers = [msgspec.convert(message, _Answer) for message in self._inbox.feed(piece)]
            blocks = [(answer.written.start, answer.written.stop) for answer in answers if answer.written]
            if len(answers) > 1 or any(block != self.block for block in blocks):
                raise GarbledMessageError("an answer about another block")
        except (GarbledMessageError, msgspec.ValidationError) as error:
            raise EmbedcoreError(
                f"a worker sent an invalid message while decoding {names}: {one_line(str(error))}"
            ) from error
        if not answers:
            return None
        self.block = None
        return answers[0].taken(names)

    def dismiss(self) -> None:
        """Terminate the process."""
        self.connection.close()
        self._process.terminate()
        self._process.join()


class _Answer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A worker's answer: the written block, or a failure in one of the other fields."""

    written: WrittenBlock | None = None
    errno: int | None = None
    """Of an OSError while writing."""
    refused: str = ""
    """The message of an EmbedcoreError."""
    failed: str = ""
    """A traceback."""

    def taken(self, names: str) -> WrittenBlock:
        """Return the block, or raise the worker's error."""
        if self.written is not None:
            return self.written
        if self.errno is not None:
            raise OSError(self.errno, os.strerror(self.errno))
        if self.refused:
            raise EmbedcoreError(self.refused)
        raise EmbedcoreError(f"a worker failed while decoding {names}:\n{self.failed}")


def _serve(connection: Connection, reader: PixelReader, store: UnfinishedStore) -> None:
    """Run the worker: answer each block that is received, until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process group; the parent ends its workers
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            start, items, digests = connection.recv()
            try:
                answer = _Answer(written=write_block(reader.of(items, digests), store, start))
            except OSError as error:
                answer = _Answer(errno=error.errno) if error.errno else _Answer(failed=traceback.format_exc())
            except EmbedcoreError as error:
                answer = _Answer(refused=str(error))
            except Exception:
                answer = _Answer(failed=traceback.format_exc())
            send(connection.fileno(), msgspec.to_builtins(answer))


@contextlib.contextmanager
def hidden_main(*, keep: bool = False) -> Iterator[None]:
    """Keep a starting child from importing the user's script, which runs again in the child without a main guard.

    ``keep``: do not hide it, since the child needs something that is defined there.
    """
    main = sys.modules["__main__"]
    if not keep:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
