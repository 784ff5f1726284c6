"""Pixel store: all images of a dataset decoded once for one geometry, on disk, memory-mapped.

A store is a ``.npy`` file, uint8 [n, h, w, 3], with a ``.json`` beside it that says what it holds and carries a
checksum of each block. The file gets its name only when it is whole; the checksums are compared when it is opened.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import shutil
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
from numpy.typing import NDArray

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.images.geometry import Geometry
from embedcore.images.pixel_rows import BLOCK, PixelReader, WrittenBlock, blocks_of, write_block
from embedcore.images.pixel_stream import PixelStream
from embedcore.images.sources import describe_bad_images
from embedcore.images.workers import usable_cpus, worker_context, write_blocks

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset

FOLDER = "pixels"  # within the cache folder

_FORMAT = 1
_SMALL = 256  # fewer images are made in the process itself, sooner than a forkserver has imported what workers need
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger(__name__)


class PixelStore(ABC):
    """The pixels of a dataset in one geometry.

    Picklable: another process opens the same store without checking it again.
    """

    streamed: bool
    """Whether the pixels are made anew at each reading, for want of room on the disk."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        """[n, h, w, 3]."""

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images start to stop - 1, uint8 [stop - start, h, w, 3], C-contiguous; of a stored one, a read-only view."""


class StoredPixels(PixelStore):
    """A store on disk."""

    streamed = False

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        super().__init__(shape)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredPixels, (self.path, self.shape)

    @functools.cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [n, h, w, 3], memory-mapped and read-only. Raises EmbedcoreError where the file has been taken away."""
        try:
            pixels = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise EmbedcoreError(f"pixel store {self.path} cannot be opened any more: {error}") from error
        if pixels.shape != self.shape or pixels.dtype != np.uint8:
            raise EmbedcoreError(
                f"pixel store {self.path} has changed: {pixels.dtype} {pixels.shape}, not uint8 {self.shape}"
            )
        return np.asarray(pixels)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.pixels[start:stop]


class StreamedPixels(PixelStore):
    """No store: the pixels are made at each reading."""

    streamed = True

    def __init__(self, reader: PixelReader, workers: int) -> None:
        super().__init__((len(reader), *reader.shape))
        self._reader = reader
        self._workers = workers

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamedPixels, (self._reader, self._workers)

    @functools.cached_property
    def _stream(self) -> PixelStream:
        return PixelStream(self._reader, self._workers)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self._stream.read(start, min(stop, len(self)))


@dataclass(frozen=True)
class _Description:
    """What a store holds: the sidecar's content, less the checksums."""

    format: int
    fingerprint: str
    geometry: str
    shape: tuple[int, ...]
    made_by: str
    """Digest of the transform's behaviour and of the decoder's version."""
    block: int


def open_pixel_store(
    dataset: Dataset,
    geometry: Geometry,
    cache_dir: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore:
    """The pixels of all images of a dataset, from the store under ``cache_dir`` or made now.

    A store that is damaged, or was made of other content or by a transform or decoder that behaves otherwise, is made
    anew. Of several processes that want the same store one makes it while the others wait. Where the disk lacks the
    room, the pixels are streamed instead and a RuntimeWarning says so.

    ``workers``: processes that decode, all usable CPUs by default. ``progress(done, total)`` is called as images are
    made.

    Raises UsageError where images cannot be read (all of them are counted, the first few named) or ``cache_dir`` cannot
    be written to, EmbedcoreError where a worker died (with the range of images that it had in hand).
    """
    reader = PixelReader(dataset.images, dataset.digests, geometry)
    made_by = hashlib.sha256(f"{geometry.behaviour()}\n{dataset.images.decoder}".encode()).hexdigest()
    shape = (len(reader), *reader.shape)
    wanted = _Description(_FORMAT, dataset.fingerprint, geometry.key, shape, made_by, BLOCK)
    workers = workers or usable_cpus()
    path = cache_dir / FOLDER / f"{dataset.fingerprint[:16]}-{geometry.key}-{made_by[:8]}.npy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(path):
            if not _is_sound(path, wanted):
                _make(path, wanted, reader, workers, progress)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise UsageError(
                f"cannot write the pixel store {path}: {error.strerror or error}; choose another cache folder"
            ) from error
        needed = int(np.prod(shape)) / 1e9
        warnings.warn(
            f"no room for a pixel store of {needed:.1f} GB in {path.parent}: images are decoded at each reading "
            f"instead, once per model (free some space, or choose another cache folder)",
            RuntimeWarning,
            stacklevel=2,
        )
        return StreamedPixels(reader, workers)
    return StoredPixels(path, shape)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.info("waiting for another process that makes the pixel store %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(
    path: Path,
    wanted: _Description,
    reader: PixelReader,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the store under a temporary name, compare it with its checksums, give it its name. The lock is held."""
    partial = path.with_name(path.name + ".partial")  # one name, so that what a killed process left is overwritten
    partial.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    size = int(np.prod(wanted.shape))
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        empty = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=wanted.shape)
        offset = empty.offset
        del empty
        written = _write_all(reader, partial, offset, workers, progress)
        bad = [failure for block in written for failure in block.bad]
        if bad:
            raise UsageError(describe_bad_images(bad, len(reader)))
        checksums = [block.checksum for block in written]
        if _checksums(np.load(partial, mmap_mode="r", allow_pickle=False)) != checksums:
            raise EmbedcoreError(f"{partial} does not read back as it was written: is the disk sound?")
        partial.replace(path)
        sidecar = json.dumps({**asdict(wanted), "checksums": checksums})
        partial.write_text(sidecar, encoding="utf-8")
        partial.replace(_sidecar(path))
        _sound_files.add(_identity(path))
    finally:
        partial.unlink(missing_ok=True)


def _write_all(
    reader: PixelReader,
    path: Path,
    offset: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[WrittenBlock]:
    blocks = blocks_of(len(reader))
    outcomes: Iterator[WrittenBlock]
    if len(reader) < _SMALL or workers == 1 or process.current_process().daemon:  # a daemon may have no children
        outcomes = (write_block(reader, path, offset, start, stop) for start, stop in blocks)
    else:
        outcomes = write_blocks(reader, path, offset, blocks, workers, worker_context())
    written = []
    done = 0
    try:
        for outcome in outcomes:
            written.append(outcome)
            done += outcome.stop - outcome.start
            if progress is not None:
                progress(done, len(reader))
    finally:
        outcomes.close()  # type: ignore[attr-defined]
    return sorted(written, key=lambda block: block.start)


def _is_sound(path: Path, wanted: _Description) -> bool:
    """Whether the store is there, is the one wanted, and matches its checksums (compared once in a process)."""
    try:
        sidecar = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, EOFError) as error:
        _log.warning("pixel store %s is damaged (%s): made anew", path, error)
        return False
    checksums = sidecar.pop("checksums", None) if isinstance(sidecar, dict) else None
    if sidecar != json.loads(json.dumps(asdict(wanted))) or pixels.shape != wanted.shape or pixels.dtype != np.uint8:
        return False
    if _identity(path) in _sound_files:
        return True
    if _checksums(pixels) != checksums:
        _log.warning("pixel store %s is damaged (a checksum differs): made anew", path)
        return False
    _sound_files.add(_identity(path))
    return True


_sound_files: set[tuple[str, int, int, int]] = set()


def _identity(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


def _checksums(pixels: NDArray[np.uint8]) -> list[int]:
    """CRC-32 of each block; zlib releases the interpreter lock, so that threads do."""
    with ThreadPoolExecutor(max_workers=min(8, usable_cpus())) as pool:
        return list(pool.map(lambda block: zlib.crc32(pixels[block[0] : block[1]].data), blocks_of(len(pixels))))


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")
