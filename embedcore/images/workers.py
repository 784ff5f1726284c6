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

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedcore.errors import EmbedcoreError
from embedcore.forkserver import forkserver_context, start_surely
from embedcore.images.decode import BadImageError, ImageUnavailable, elongation_refusal, reason_of
from embedcore.images.retries import retried
from embedcore.images.sources import ImageSource
from embedcore.messages import GarbledMessageError, Inbox, send
from embedcore.plain import one_line

if TYPE_CHECKING:
    from embedcore.images.geometry import Geometry

BLOCK = 32  # images: the unit of work and of the checksums
_PIECE = 2**16  # bytes read at once of what a worker sends


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

        Raises BadImageError for an image that cannot be read, or has changed since the dataset was loaded. What
        another geometry or another hour may do is EmbedcoreError: a size that this geometry's transform cannot scale,
        ImageUnavailable.
        """
        name = self.source.name(index)
        image = self.source.load(index, self.digests[index])
        if reason := elongation_refusal(*image.size):
            raise BadImageError(name, reason)
        try:
            return retried(lambda: self.geometry.transform()(image))
        except MemoryError as error:
            raise ImageUnavailable(name, reason_of(error)) from error
        except (ValueError, OverflowError) as error:  # such as a side that becomes 0 pixels long
            size = f"{image.width} x {image.height} pixels"
            raise EmbedcoreError(
                f"image {name!r} of {size} cannot be scaled for geometry {self.geometry.key}: {reason_of(error)}"
            ) from error


@dataclass(frozen=True)
class WrittenBlock:
    """What became of the images start to stop - 1."""

    start: int
    stop: int
    checksum: int
    """CRC-32 of the block's pixels."""
    bad: tuple[tuple[str, str], ...]
    """Name and reason of the images that could not be read."""

    @property
    def block(self) -> tuple[int, int]:
        """Start and stop."""
        return self.start, self.stop


def blocks_of(total: int) -> list[tuple[int, int]]:
    """Start and stop of each block."""
    return [(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK)]


def write_block(reader: PixelReader, path: Path, offset: int, start: int, stop: int) -> WrittenBlock:
    """Make the pixels of a block and write them at their place in the file, whose rows begin at byte ``offset``.

    Written with ``write``, not through a memory map: on a full disk a map kills the process (SIGBUS) where this raises
    OSError. Raises EmbedcoreError where an image that may be sound cannot be had.
    """
    rows = np.zeros((stop - start, *reader.shape), np.uint8)
    bad = []
    for index in range(start, stop):
        try:
            rows[index - start] = reader.pixels(index)
        except BadImageError as error:
            bad.append((error.name, error.reason))

    def write() -> None:
        with path.open("r+b") as file:
            file.seek(offset + start * rows[0].nbytes)
            file.write(rows.data)

    retried(write)
    return WrittenBlock(start, stop, zlib.crc32(rows.data), tuple(bad))


def write_blocks(
    reader: PixelReader, path: Path, offset: int, blocks: list[tuple[int, int]], workers: int
) -> Generator[WrittenBlock, None, None]:
    """Have worker processes write the blocks into the file; yields each as it is done, in no fixed order.

    Raises OSError as the workers met it while writing (no space left, …) and EmbedcoreError for an image that may be
    sound, or with the range of images and the worker's traceback, signal or nonsense where a worker failed otherwise;
    StartError where none can be started. The workers are gone when the iterator ends or is closed.
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
                written = worker.take()
                if written is None:
                    continue
                yield written
                if todo:
                    worker.hand(todo.popleft())
    finally:
        for worker in crew.values():
            worker.dismiss()


class _Worker:
    """One process and the block that it has in hand."""

    def __init__(self, context: ForkServerContext, reader: PixelReader, path: Path, offset: int) -> None:
        self.block: tuple[int, int] | None = None
        self._inbox = Inbox()
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

    def take(self) -> WrittenBlock | None:
        """The worker's answer for its block, of which something has come; None as long as it is not complete."""
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
            code = self._process.exitcode or 0
            manner = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise EmbedcoreError(f"a worker died ({manner}) while decoding {names}")
        try:
            answers = [msgspec.convert(message, _Answer) for message in self._inbox.feed(piece)]
            if len(answers) > 1 or any(answer.written and answer.written.block != self.block for answer in answers):
                raise GarbledMessageError("another answer than was asked for")
        except (GarbledMessageError, msgspec.ValidationError) as error:
            raise EmbedcoreError(f"a worker sent nonsense while decoding {names}: {one_line(str(error))}") from error
        if not answers:
            return None
        self.block = None
        return answers[0].taken(names)

    def dismiss(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self._process.terminate()
        self._process.join()


class _Answer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a worker says of its block: that it is written, or one of the failures."""

    written: WrittenBlock | None = None
    errno: int | None = None
    """The errno of an OSError raised while writing."""
    refused: str = ""
    """One line: an EmbedcoreError."""
    failed: str = ""
    """A traceback."""

    def taken(self, names: str) -> WrittenBlock:
        """The block; or raises what the worker has met."""
        if self.written is not None:
            return self.written
        if self.errno is not None:
            raise OSError(self.errno, os.strerror(self.errno))
        if self.refused:
            raise EmbedcoreError(self.refused)
        raise EmbedcoreError(f"a worker failed while decoding {names}:\n{self.failed}")


def _serve(connection: Connection, reader: PixelReader, path: Path, offset: int) -> None:
    """The worker's main loop: a block comes in, its outcome goes out; ends when the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            start, stop = connection.recv()
            try:
                answer = _Answer(written=write_block(reader, path, offset, start, stop))
            except OSError as error:
                answer = _Answer(errno=error.errno) if error.errno else _Answer(failed=traceback.format_exc())
            except EmbedcoreError as error:
                answer = _Answer(refused=str(error))
            except Exception:
                answer = _Answer(failed=traceback.format_exc())
            send(connection.fileno(), msgspec.to_builtins(answer))


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
