"""The files of a pixel store: their names, their sidecar, whether they are sound, who uses them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import logging
import math
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcore.files import PARTIAL, sealed, unsealed
from embedcore.images.workers import blocks_of, usable_cpus

FOLDER = "pixels"  # within the cache folder
FORMAT = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """What a store holds."""

    format: int
    fingerprint: str
    geometry: str
    shape: tuple[int, ...]
    made_by: str
    """Digest of the transform's behaviour and of the decoder's version."""
    block: int


def store_path(cache_dir: Path, description: Description) -> Path:
    """Where a store of this description lies."""
    name = f"{description.fingerprint[:16]}-{description.geometry}-{description.made_by[:8]}.npy"
    return cache_dir / FOLDER / name


def sidecar_of(path: Path) -> Path:
    """The file beside the pixels that says what they are. Its modification time is when the store was last opened."""
    return path.with_suffix(".json")


def partials_of(path: Path) -> list[Path]:
    """What processes that were killed left of a store."""
    return [file for file in path.parent.iterdir() if file.name.startswith(f"{path.stem}.") and file.suffix == PARTIAL]


def header_of(shape: tuple[int, ...]) -> bytes:
    """What a ``.npy`` file of uint8 pixels of this shape begins with."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def sidecar_content(description: Description, checksums: list[int], dataset: str) -> bytes:
    """The sidecar of a file whose blocks have these checksums.

    ``dataset`` is its name, for people: content decides whether a store is the one that is wanted.
    """
    return sealed({**asdict(description), "checksums": checksums, "dataset": dataset})


def pixels_of(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The pixels in a file, memory-mapped. Raises OSError, and ValueError where there is another header or length."""
    header, size = header_of(shape), path.stat().st_size
    if size != len(header) + math.prod(shape):
        raise ValueError(f"it has {size} bytes")
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise ValueError("another header")
    return np.memmap(path, np.uint8, "r", len(header), shape)


def is_sound(path: Path, wanted: Description) -> bool:
    """Whether the store is there, is the one wanted, and matches its checksums (compared once in a process).

    No byte of either file can change unnoticed.
    """
    try:
        raw = sidecar_of(path).read_bytes()
        if b'"format": %d,' % FORMAT not in raw:  # of another version, which is no damage
            return False
        content = unsealed(raw)
        if not raw.endswith(b"\n"):
            raise ValueError("its sidecar is cut short")
        if any(content.get(key) != value for key, value in {**asdict(wanted), "shape": [*wanted.shape]}.items()):
            return False
        pixels = pixels_of(path, wanted.shape)
        if identity(path) not in _sound_files and checksums_of(pixels) != content["checksums"]:
            raise ValueError("a checksum differs")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError) as error:
        _log.warning("pixel store %s is damaged (%s): made anew", path, error)
        return False
    remember_as_sound(path)
    return True


_sound_files: set[tuple[str, int, int, int]] = set()


def remember_as_sound(path: Path) -> None:
    """Its checksums have been compared in this process."""
    _sound_files.add(identity(path))


def identity(path: Path) -> tuple[str, int, int, int]:
    """Changes when the file does. Raises OSError."""
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


def checksums_of(pixels: NDArray[np.uint8]) -> list[int]:
    """CRC-32 of each block; zlib releases the interpreter lock, so that threads do."""
    with ThreadPoolExecutor(max_workers=min(8, usable_cpus())) as pool:
        return list(pool.map(lambda block: zlib.crc32(pixels[block[0] : block[1]].data), blocks_of(len(pixels))))


def hold(path: Path) -> int | None:
    """Tell other processes that this one uses the file, until the file descriptor given is closed.

    None where there are no shared locks, as on some network file systems. Raises OSError where there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Whether this or another process holds the file. Raises OSError where there is no such file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
    else:
        return False
    finally:
        os.close(descriptor)


def touch(path: Path) -> None:
    """Note that the store is used now."""
    with contextlib.suppress(OSError):  # such as a cache that may be read only
        os.utime(sidecar_of(path))
