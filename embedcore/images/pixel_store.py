"""Pixel store: all images of a dataset decoded once for one geometry, on disk, memory-mapped.

A store is a ``.npy`` file, uint8 [n, h, w, 3], with a ``.json`` beside it that says what it holds and carries a
checksum of each block (store_file.py). The file gets its name only when it is whole; the checksums are compared when it
is opened.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import math
import os
import shutil
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
from numpy.typing import NDArray

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.files import written_whole
from embedcore.images.geometry import Geometry
from embedcore.images.sources import describe_bad_images
from embedcore.images.store_file import (
    FORMAT,
    Description,
    checksums_of,
    header_of,
    hold,
    is_sound,
    partials_of,
    pixels_of,
    remember_as_sound,
    sidecar_content,
    sidecar_of,
    store_path,
    touch,
)
from embedcore.images.workers import BLOCK, PixelReader, WrittenBlock, blocks_of, usable_cpus, write_block, write_blocks
from embedcore.progress import Progress

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset

_SMALL = 256  # fewer images are made in the process itself, sooner than a forkserver has imported what workers need
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PixelStore(ABC):
    """The pixels of a dataset in one geometry.

    Picklable: another process opens the same store without checking it again.
    """

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
    """No store, for want of room: pixels decoded at each reading, by ``workers`` threads, ahead of the reader.

    While the caller works on one range, as many images after it are being made; at most two ranges are held in memory.
    Pillow releases the interpreter lock where it decodes and resizes. Not safe for several readers at once.
    """

    def __init__(self, reader: PixelReader, workers: int) -> None:
        super().__init__((len(reader), *reader.shape))
        self._reader = reader
        self._workers = workers
        self._ahead: dict[int, Future[NDArray[np.uint8]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamedPixels, (self._reader, self._workers)

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=self._workers, thread_name_prefix="embedcore-pixels")

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """As for a stored one, but a copy. Raises BadImageError."""
        stop = min(stop, len(self))
        ahead, self._ahead = self._ahead, {}
        wanted = [ahead.pop(index) if index in ahead else self._submit(index) for index in range(start, stop)]
        for stale in ahead.values():  # the reader jumped
            stale.cancel()
        self._ahead = {index: self._submit(index) for index in range(stop, min(2 * stop - start, len(self)))}
        rows = np.empty((stop - start, *self.shape[1:]), np.uint8)
        for row, future in zip(rows, wanted, strict=True):
            row[...] = future.result()
        return rows

    def _submit(self, index: int) -> Future[NDArray[np.uint8]]:
        return self._pool.submit(self._reader.pixels, index)


def open_pixel_store(
    dataset: Dataset,
    geometry: Geometry,
    cache_dir: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PixelStore:
    """The pixels of all images of a dataset, from the store under ``cache_dir`` or made now.

    A store that is damaged, or was made of other content or by a transform or decoder that behaves otherwise, is made
    anew. Of several processes that want the same store one makes it while the others wait. Where the disk lacks the
    room, the pixels are streamed instead and a RuntimeWarning says so. As long as the store given is referenced,
    ``embedcore cache prune`` leaves its files alone. ``workers``: processes that decode, all usable CPUs by default.

    Raises UsageError where images cannot be read (all of them are named), have changed since the dataset was loaded, or
    ``cache_dir`` cannot be written to; EmbedcoreError where a worker died (with the range of images that it had in
    hand) or none can be started.
    """
    reader = PixelReader(dataset.images, dataset.digests, geometry)
    made_by = hashlib.sha256(f"{geometry.behaviour()}\n{dataset.images.decoder}".encode()).hexdigest()
    shape = (len(reader), *reader.shape)
    wanted = Description(FORMAT, dataset.fingerprint, geometry.key, shape, made_by, BLOCK)
    workers = workers or usable_cpus()
    path = store_path(cache_dir, wanted)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not is_sound(path, wanted):
                _make(path, wanted, reader, dataset, workers, progress)
            touch(path)
            held = hold(path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise UsageError(
                f"cannot write the pixel store {path}: {error.strerror or error}; choose another cache folder"
            ) from error
        warnings.warn(
            f"no room for a pixel store of {math.prod(shape) / 1e9:.1f} GB in {path.parent}: images are decoded at "
            f"each reading instead, once per model (free some space, or choose another cache folder)",
            RuntimeWarning,
            stacklevel=2,
        )
        return StreamedPixels(reader, workers)
    store = StoredPixels(path, shape)
    if held is not None:
        weakref.finalize(store, os.close, held)
    return store


def _make(
    path: Path, wanted: Description, reader: PixelReader, dataset: Dataset, workers: int, progress: Progress | None
) -> None:
    """Write the store under a temporary name, compare it with its checksums, give it its name. The lock is held."""
    for left in [*partials_of(path), path]:
        left.unlink(missing_ok=True)
    size = math.prod(wanted.shape)
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # Its temporary name is its own: a worker of a killed process may still be about to write to the one that it knows.
    with written_whole(path) as file:
        partial = Path(file.name)
        file.write(header_of(wanted.shape))
        file.truncate(file.tell() + size)
        written = _write_all(reader, partial, file.tell(), workers, progress)
        bad = [failure for block in written for failure in block.bad]
        if bad:
            raise UsageError(describe_bad_images(bad, len(reader)))
        checksums = [block.checksum for block in written]
        if checksums_of(pixels_of(partial, wanted.shape)) != checksums:
            raise EmbedcoreError(f"{partial} does not read back as it was written: is the disk sound?")
        # The pixels are those of the digests all the same, but no later session could use them.
        if (change := dataset.changed(now=True)) is not None:
            raise UsageError(f"{change}: start again, with the new content")
        sidecar = sidecar_content(wanted, checksums, dataset.name)
    with written_whole(sidecar_of(path)) as file:
        file.write(sidecar)
    remember_as_sound(path)


def _write_all(
    reader: PixelReader, path: Path, offset: int, workers: int, progress: Progress | None
) -> list[WrittenBlock]:
    blocks = blocks_of(len(reader))
    outcomes: Generator[WrittenBlock, None, None]
    if len(reader) < _SMALL or workers == 1:
        outcomes = (write_block(reader, path, offset, *block) for block in blocks)
    elif process.current_process().daemon or not reader.source.portable:  # a daemon may have no children
        outcomes = _written_by_threads(reader, path, offset, blocks, workers)
    else:
        outcomes = write_blocks(reader, path, offset, blocks, workers)
    written = []
    done = 0
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            written.append(outcome)
            done += outcome.stop - outcome.start
            if progress is not None:
                progress(done, len(reader))
    return sorted(written, key=lambda block: block.start)


def _written_by_threads(
    reader: PixelReader, path: Path, offset: int, blocks: list[tuple[int, int]], workers: int
) -> Generator[WrittenBlock, None, None]:
    with ThreadPoolExecutor(workers, thread_name_prefix="embedcore-pixels") as pool:
        yield from pool.map(lambda block: write_block(reader, path, offset, *block), blocks)
