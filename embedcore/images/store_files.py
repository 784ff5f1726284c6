"""The files of a pixel store: their names and layout, checksums, and the lock of a store in use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

from embedcore.files import PARTIAL

BLOCK = 32  # images per unit of work and per checksum
IN_USE = "in use by a running process"
_PIECE = 2**18  # bytes read at once
_LONGEST_HEADER = 256  # bytes
_READERS = 8  # threads


def blocks_of(total: int) -> list[tuple[int, int]]:
    """Return start and stop of each block."""
    return [(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK)]


def sidecar_of(path: Path) -> Path:
    """Return the JSON file that describes the pixels in ``path``. Its modification time is the store's last use."""
    return path.with_suffix(".json")


def header_of(shape: tuple[int, ...]) -> bytes:
    """Return the header of a ``.npy`` file of uint8 pixels of this shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def rows_begin(shape: tuple[int, ...], row: int) -> int:
    """Return the position in the file of an image's pixels."""
    return len(header_of(shape)) + row * math.prod(shape[1:])


def shape_of(path: Path) -> tuple[int, ...]:
    """Return the shape in a file's header. Raises OSError, and ValueError if it is not that of pixels."""
    with path.open("rb") as file:
        begin = file.read(_LONGEST_HEADER)
    # numpy's own parser raises several kinds of errors for a damaged header.
    found = re.search(rb"\((\d+), (\d+), (\d+), (\d+)\)", begin)
    shape = tuple(map(int, found.groups())) if found else ()
    if 0 in shape or not found or not begin.startswith(header_of(shape)):
        raise ValueError("it has no header of pixels")
    return shape


def map_pixels(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory-map the pixels in a file. Raises OSError, and ValueError for another header or length."""
    header, size = header_of(shape), path.stat().st_size
    if size != len(header) + math.prod(shape):
        raise ValueError(f"it has changed: {size} bytes")
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise ValueError("it has changed: another header")
    return np.memmap(path, np.uint8, "r", len(header), shape)


def identity_of(path: Path) -> tuple[str, int, int, int]:
    """Return path, inode, size and modification time, which change with the file. Raises OSError."""
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


def checksums_of(path: Path, shape: tuple[int, ...], blocks: Iterable[tuple[int, int]] | None = None) -> list[int]:
    """Return the CRC-32 of the pixels of each block, by default of all, computed by threads. Raises OSError.

    The file is not mapped, since the pages of a map count as memory of the process.
    """

    def checksum(block: tuple[int, int]) -> int:
        begin, end = (rows_begin(shape, row) for row in block)
        value = 0
        with path.open("rb", buffering=0) as file:
            file.seek(begin)
            while begin < end and (piece := file.read(min(_PIECE, end - begin))):
                value = zlib.crc32(piece, value)  # releases the interpreter lock
                begin += len(piece)
        return value

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(checksum, blocks_of(shape[0]) if blocks is None else blocks))


def bytes_on_disk(path: Path, status: os.stat_result) -> int:
    """Return the bytes that a file occupies, which is its size unless it is unfinished and has holes."""
    return min(status.st_size, status.st_blocks * 512) if path.name.endswith(PARTIAL) else status.st_size


def hold(path: Path) -> int:
    """Mark a file as in use until the returned file descriptor is closed. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some network file systems have no shared locks
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def is_held(path: Path) -> bool:
    """Return whether this or another process has marked the file as in use. Raises OSError for a missing file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
    else:
        return False
    finally:
        os.close(descriptor)


def remove_unused(files: Iterable[Path], locks: Iterable[Path]) -> str:
    """Remove files and folders, in order, unless a process holds one of them or of the locks.

    Returns the obstacle, "" for none. Lock files stay, since another process may be waiting for them.
    """
    try:
        with contextlib.ExitStack() as locked:
            for lock in locks:
                locked.enter_context(filelock.FileLock(lock, timeout=0))
            existing = [file for file in files if file.exists()]
            if any(is_held(file) for file in existing):
                return IN_USE
            for file in existing:
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)
    except filelock.Timeout:
        return IN_USE
    except OSError as error:
        return error.strerror or str(error)
    return ""
