"""Pixel store: all images of a dataset decoded once for one geometry, on disk, memory-mapped.

A store is a ``.npy`` file, uint8 [n, h, w, 3], with a ``.json`` sidecar that describes it and has a checksum of each
block. The file gets its name only when it is complete; the checksums are verified when it is opened. A process goes on
where a killed one stopped (`UnfinishedStore`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
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
from embedcore.files import sealed, unsealed, written_whole
from embedcore.images.decode import reason_of
from embedcore.images.retries import is_transient
from embedcore.images.sources import describe_bad_images
from embedcore.images.store_files import BLOCK, blocks_of, checksums_of, hold, identity_of, map_pixels, sidecar_of
from embedcore.images.store_limit import make_room
from embedcore.images.unfinished_store import UnfinishedStore, created, taken_over
from embedcore.images.workers import PixelReader, WrittenBlock, usable_cpus, write_block, write_blocks
from embedcore.plain import bytes_text
from embedcore.progress import Progress

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.geometry import Geometry

FOLDER = "pixels"  # within the cache folder
FORMAT = 3

_SMALL = 256  # fewer images are decoded in this process: starting workers would take longer
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger(__name__)


Description = dict[str, Any]
"""What a store contains, as in its sidecar: JSON values."""


class PixelStore(ABC):
    """The pixels of a dataset in one geometry. Picklable: another process opens a store without verifying it again."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        """[n, h, w, 3]."""

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return images start to stop - 1: uint8 [stop - start, h, w, 3], C-contiguous; a read-only view if stored."""


class StoredPixels(PixelStore):
    """A store on disk."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        super().__init__(shape)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredPixels, (self.path, self.shape)

    @functools.cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [n, h, w, 3], memory-mapped and read-only. Raises EmbedcoreError for a missing or changed file."""
        try:
            return np.asarray(map_pixels(self.path, self.shape))
        except (OSError, ValueError) as error:
            raise EmbedcoreError(f"pixel store {self.path} can no longer be opened: {error}") from error

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.pixels[start:stop]


class SelectedPixels(PixelStore):
    """Some images of a store on disk, or of such a selection."""

    def __init__(self, store: StoredPixels | SelectedPixels, rows: NDArray[np.int64]) -> None:
        super().__init__((len(rows), *store.shape[1:]))
        if isinstance(store, SelectedPixels):
            rows, store = store._rows[rows], store._store
        self._store: StoredPixels = store
        self._rows: NDArray[np.int64] = rows

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return images start to stop - 1, as a copy."""
        return self._store.pixels[self._rows[start:stop]]


class StreamedPixels(PixelStore):
    """Pixels decoded at each reading by ``workers`` threads, for lack of room on the disk.

    While the caller works on one range, as many following images are decoded; at most two ranges are in memory. Not
    thread-safe.
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
        """Return images start to stop - 1, as a copy. Raises BadImageError."""
        stop = min(stop, len(self))
        ahead, self._ahead = self._ahead, {}
        wanted = [ahead.pop(index) if index in ahead else self._submit(index) for index in range(start, stop)]
        for stale in ahead.values():  # the caller did not read on
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
    limit: int | None = None,
) -> PixelStore:
    """Return the pixels of all images of a dataset, from a store under ``cache_dir`` or a new one.

    A store is built again if it is damaged or another content, transform or decoder made it; building goes on from what
    an earlier process has written. If several processes need the same store, one builds it and the others wait. Images
    selected from a dataset are read from its store, if it exists. Without room on the disk the pixels are streamed,
    with a RuntimeWarning. ``embedcore cache prune`` keeps the files while the returned store is referenced.
    ``workers``: number of decoding processes, by default all usable CPUs. ``limit``: bytes for all stores under
    ``cache_dir``; the least recently used are removed for a new one, which is streamed if that is not enough.

    Raises UsageError for images that cannot be read or have changed since the dataset was loaded (all are named), and
    for a ``cache_dir`` that cannot be written to; EmbedcoreError for workers that died (with the range of their images)
    or cannot be started, for temporary errors, and for images that this geometry cannot scale.
    """
    if dataset.part_of is not None:
        whole, rows = dataset.part_of
        stored = _existing_store(whole, geometry, cache_dir)
        if stored is not None:
            return SelectedPixels(stored, rows)
    reader = PixelReader(dataset.images, dataset.digests, geometry)
    path, wanted = _described(dataset, geometry, cache_dir)
    workers = workers or usable_cpus()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not is_sound(path, wanted):
                path.unlink(missing_ok=True)  # damaged
                unfinished = taken_over(path, tuple(wanted["shape"]))
                needed = unfinished.missing_bytes() if unfinished else math.prod(wanted["shape"])
                if limit is not None and not make_room(path.parent, needed, limit):
                    if unfinished:
                        unfinished.path.unlink()
                    return _streamed(reader, workers, f"within the limit of {bytes_text(limit)} for {path.parent}")
                _make(path, wanted, unfinished, reader, dataset, workers, progress)
            return _opened(path, wanted)
    except OSError as error:
        if is_transient(error):  # the next case may succeed
            raise EmbedcoreError(f"the pixel store {path} cannot be written or read now: {reason_of(error)}") from error
        if error.errno not in _NO_ROOM:
            raise UsageError(
                f"cannot write the pixel store {path}: {error.strerror or error}; choose another cache folder"
            ) from error
        return _streamed(reader, workers, f"in {path.parent}")


def _described(dataset: Dataset, geometry: Geometry, cache_dir: Path) -> tuple[Path, Description]:
    """Return the path of a dataset's store and its description."""
    made_by = hashlib.sha256(f"{geometry.behaviour()}\n{dataset.images.decoder}".encode()).hexdigest()
    wanted: Description = {
        "format": FORMAT,
        "fingerprint": dataset.fingerprint,
        "geometry": geometry.key,
        "shape": [len(dataset), geometry.height, geometry.width, 3],
        "made_by": made_by,  # behaviour of the transform and version of the decoder
        "block": BLOCK,
    }
    return cache_dir / FOLDER / f"{dataset.fingerprint[:16]}-{geometry.key}-{made_by[:8]}.npy", wanted


def _opened(path: Path, wanted: Description) -> StoredPixels:
    """Return a sound store, which is marked as in use while it is referenced. Raises OSError."""
    with contextlib.suppress(OSError):  # such as a read-only cache
        os.utime(sidecar_of(path))
    held = hold(path)
    images, height, width, channels = wanted["shape"]
    store = StoredPixels(path, (images, height, width, channels))
    weakref.finalize(store, os.close, held)
    return store


def _existing_store(dataset: Dataset, geometry: Geometry, cache_dir: Path) -> StoredPixels | None:
    """Return the store of a dataset; None if there is none now, or it is damaged or being built."""
    path, wanted = _described(dataset, geometry, cache_dir)
    with contextlib.suppress(OSError):  # also if another process holds the lock
        if path.exists():
            with filelock.FileLock(f"{path}.lock", timeout=0):
                return _opened(path, wanted) if is_sound(path, wanted) else None
    return None


def _streamed(reader: PixelReader, workers: int, where: str) -> StreamedPixels:
    size = len(reader) * math.prod(reader.shape)
    warnings.warn(
        f"no room for a pixel store of {bytes_text(size)} {where}: images are decoded again for each model (free some "
        "space, or choose another cache folder)",
        RuntimeWarning,
        stacklevel=3,
    )
    return StreamedPixels(reader, workers)


def _make(
    path: Path,
    wanted: Description,
    unfinished: UnfinishedStore | None,
    reader: PixelReader,
    dataset: Dataset,
    workers: int,
    progress: Progress | None,
) -> None:
    """Write the missing blocks, verify all checksums and give the store its name. The caller holds the lock.

    What is written stays for the next process if this one ends, or images cannot be read now.
    """
    store = unfinished or created(path, tuple(wanted["shape"]))
    blocks = blocks_of(len(reader))
    try:
        if shutil.disk_usage(path.parent).free < store.missing_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        known = store.checksums() if unfinished else {}
        bad = _write(reader, store, [block for block in blocks if block[0] not in known], workers, progress)
        if bad:
            raise UsageError(describe_bad_images(bad, len(reader)))
        checksums = store.checksums()
        if len(checksums) < len(blocks):
            raise EmbedcoreError(f"{store.path} does not read back as written: check the disk")
        # Before the pixels, so that a process that is killed in between leaves them unfinished.
        with written_whole(sidecar_of(path)) as file:
            # The dataset's name is for people; the content identifies a store.
            file.write(sealed({**wanted, "checksums": [*checksums.values()], "dataset": dataset.name}))
        store.finish(path)
    except (UsageError, OSError) as error:
        if not is_transient(error):
            store.path.unlink(missing_ok=True)
        raise
    _sound_files.add(identity_of(path))


def _write(
    reader: PixelReader, store: UnfinishedStore, blocks: list[tuple[int, int]], workers: int, progress: Progress | None
) -> list[tuple[str, str]]:
    """Write the blocks; return name and reason of each image that cannot be read."""
    missing = sum(stop - start for start, stop in blocks)
    done = len(reader) - missing
    if done and progress is not None:
        progress(done, len(reader))
    shared = missing >= _SMALL and workers > 1 and reader.source.portable
    if shared and not process.current_process().daemon:  # a daemon may have no children
        outcomes = write_blocks(reader, store, blocks, workers)
    else:
        outcomes = _written_by_threads(reader, store, blocks, workers)
    bad: dict[int, tuple[tuple[str, str], ...]] = {}
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            bad[outcome.start] = outcome.bad
            done += outcome.stop - outcome.start
            if progress is not None:
                progress(done, len(reader))
    return [failure for start in sorted(bad) for failure in bad[start]]


def _written_by_threads(
    reader: PixelReader, store: UnfinishedStore, blocks: list[tuple[int, int]], workers: int
) -> Generator[WrittenBlock, None, None]:
    with ThreadPoolExecutor(workers, thread_name_prefix="embedcore-pixels") as pool:
        yield from pool.map(lambda block: write_block(reader.part(*block), store, block[0]), blocks)


_sound_files: set[tuple[str, int, int, int]] = set()
"""Identities of the files whose checksums this process has verified."""


def is_sound(path: Path, wanted: Description) -> bool:
    """Return whether the store exists, is the one wanted, and matches its checksums (verified once per process).

    A change of any byte of either file is noticed. Raises OSError for transient errors.
    """
    try:
        raw = sidecar_of(path).read_bytes()
        if b'"format": %d,' % FORMAT not in raw:  # another version, not damage
            return False
        content = unsealed(raw)
        if not raw.endswith(b"\n"):
            raise ValueError("its sidecar is cut short")
        if any(content.get(key) != value for key, value in wanted.items()):
            return False
        map_pixels(path, tuple(wanted["shape"]))
        if identity_of(path) not in _sound_files and checksums_of(path, tuple(wanted["shape"])) != content["checksums"]:
            raise ValueError("a checksum differs")
        _sound_files.add(identity_of(path))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError) as error:
        if is_transient(error):
            raise
        _log.warning("pixel store %s is damaged (%s) and built again", path, error)
        return False
    return True
