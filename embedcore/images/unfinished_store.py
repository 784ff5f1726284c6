"""An unfinished pixel store: blocks are written in any order, and survive the process that writes them.

The file begins like the finished one. After the pixels it has a note of 8 bytes for each block: the CRC-32 of its
pixels and the complement. The note is written after the block. A block is complete if its pixels match its note, also
after a power failure.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcore.files import PARTIAL, unfinished_name
from embedcore.images.store_files import (
    BLOCK,
    blocks_of,
    bytes_on_disk,
    checksums_of,
    header_of,
    is_held,
    rows_begin,
    shape_of,
)

_LONGEST_WRITE_S = 10.0  # of one block


@dataclass(frozen=True)
class UnfinishedStore:
    """The file of a store that is being built."""

    path: Path
    shape: tuple[int, ...]
    """[n, h, w, 3]."""

    @property
    def _notes_begin(self) -> int:
        return rows_begin(self.shape, self.shape[0])

    @property
    def size(self) -> int:
        """Bytes of the file, holes included."""
        return self._notes_begin + 8 * len(blocks_of(self.shape[0]))

    def missing_bytes(self) -> int:
        """Return how much the file will still grow on the disk. Raises OSError."""
        return self.size - bytes_on_disk(self.path, self.path.stat())

    def write(self, start: int, rows: NDArray[np.uint8], *, complete: bool = True) -> None:
        """Write the pixels of the block that begins with image ``start``, then its note if it is ``complete``.

        Not through a memory map: on a full disk that kills the process (SIGBUS), while ``write`` raises OSError. Also
        raises OSError if another process has taken the file over.
        """
        with self.path.open("r+b") as file:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_ino != self.path.stat().st_ino:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            file.seek(rows_begin(self.shape, start))
            file.write(rows.data)
            if complete:
                checksum = zlib.crc32(rows.data)
                file.seek(self._notes_begin + start // BLOCK * 8)
                file.write(struct.pack("<2I", checksum, checksum ^ 0xFFFFFFFF))

    def checksums(self) -> dict[int, int]:
        """Return the checksum of each complete block by its first image, in order; reads the pixels. Raises OSError."""
        noted = self._noted()
        blocks = [block for block, (checksum, complement) in noted.items() if checksum ^ complement == 0xFFFFFFFF]
        found = zip(blocks, checksums_of(self.path, self.shape, blocks), strict=True)
        return {block[0]: checksum for block, checksum in found if checksum == noted[block][0]}

    def noted_share(self) -> float:
        """Return the share of blocks with a note; does not read the pixels. Raises OSError."""
        noted = self._noted().values()
        return sum(checksum ^ complement == 0xFFFFFFFF for checksum, complement in noted) / len(noted)

    def _noted(self) -> dict[tuple[int, int], tuple[int, int]]:
        with self.path.open("rb") as file:
            file.seek(self._notes_begin)
            numbers = np.frombuffer(file.read(), "<u4").reshape(-1, 2).tolist()
        return {block: (note[0], note[1]) for block, note in zip(blocks_of(self.shape[0]), numbers, strict=True)}

    def finish(self, path: Path) -> None:
        """Cut the notes off and give the file its name. Raises OSError."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())  # takes long; a process that is killed meanwhile leaves the notes
            file.truncate(self._notes_begin)
            os.fsync(file.fileno())
        self.path.replace(path)


def created(path: Path, shape: tuple[int, ...]) -> UnfinishedStore:
    """Create the unfinished store of ``path``, without pixels. Raises OSError."""
    store = UnfinishedStore(unfinished_name(path), shape)
    try:
        with store.path.open("xb") as file:
            file.write(header_of(shape))
            file.truncate(store.size)
    except BaseException:
        store.path.unlink(missing_ok=True)
        raise
    return store


def taken_over(path: Path, shape: tuple[int, ...]) -> UnfinishedStore | None:
    """Return the unfinished store of ``path`` that an earlier process has left, under a new name; None without one.

    A decoding worker may outlive its process by a block. It opens the file by name for each block and locks it while it
    writes, so nobody writes to a file that is renamed and unlocked. Other leftovers are removed. The caller holds the
    lock of ``path``. Raises OSError.
    """
    found = None
    for left in sorted(path.parent.glob(f"{path.stem}.*{PARTIAL}")):
        store = UnfinishedStore(unfinished_name(path), shape)
        left.rename(store.path)
        if found is None and left_over(store.path) == store and _is_released(store.path):
            found = store
        else:
            store.path.unlink()
    return found


def left_over(path: Path) -> UnfinishedStore | None:
    """Return the unfinished store in a file; None if the file is not one. Raises OSError."""
    try:
        store = UnfinishedStore(path, shape_of(path))
    except ValueError:
        return None
    return store if path.stat().st_size == store.size else None


def _is_released(path: Path) -> bool:
    """Wait until nobody writes to the file; return whether that is so."""
    deadline = time.monotonic() + _LONGEST_WRITE_S
    while is_held(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
