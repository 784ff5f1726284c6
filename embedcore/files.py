"""User paths, atomic file writes, checksums of content, and free disk space."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from embedcore.errors import UsageError

PARTIAL = ".partial"
"""Suffix of files that are being written, or were left unfinished by a killed process."""

STORAGE = Path(".benchmarks")
"""Where pytest-benchmark saves by default, as ``<machine>/NNNN_<name>.json``."""

SPARE_BYTES = 10**9
"""Left free on the disk by downloads and unpacked archives."""

_PIECE = 2**20  # bytes
_SEAL = re.compile(rb'(.*), "crc32": "([0-9a-f]{8})"\}\n?', re.DOTALL)


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` expanded to the home folder, as shells do not after ``=``."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser raises for an unknown ~name)


def cache_folder(folder: Path | None) -> Path:
    """Return the folder that an option names; by default the user's cache folder."""
    if folder is not None:
        return folder
    import platformdirs

    return platformdirs.user_cache_path("embedcore")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's content, read in pieces. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def code_hash(folder: Path, files: Iterable[Path]) -> str:
    """Return a hash (hex) of the names and contents of files in a folder (timm: 300 files in 30 ms)."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def free_bytes(folder: Path) -> int | None:
    """Return the free bytes where a folder is or would be created; None if not known."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None


def unfinished_name(path: Path) -> Path:
    """Return a unique name beside ``path`` for a file that is being written."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write into, which is renamed to ``path`` if the block raises no exception. Raises OSError.

    Readers see the old file or the new one, also after a power failure; if ``path`` is a link, it is replaced, not
    followed.
    """
    partial = unfinished_name(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path, option: str = "", *, make_folder: bool = False) -> Iterator[IO[bytes]]:
    """Yield a file as `written_whole` does. Raises UsageError, with the `option` that names the path, if it has one."""
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            yield file
    except OSError as error:
        prefix = f"{option}: " if option else ""
        raise UsageError(f"{prefix}{path} cannot be written: {error.strerror or error}") from error


def sealed(content: Mapping[str, Any]) -> bytes:
    r"""Return content as one line of strict ASCII JSON that ends with its checksum.

    >>> sealed({"a": 1})
    b'{"a": 1, "crc32": "fba18e97"}\n'
    """
    # ASCII only, since some readers take other Unicode characters for the end of a line.
    text = json.dumps(content, ensure_ascii=True, allow_nan=False).encode()
    return b'%s, "crc32": "%08x"}\n' % (text[:-1], zlib.crc32(text))


def is_sealed(line: bytes) -> bool:
    """Whether a line was written by `sealed` and is undamaged, without parsing it."""
    seal = _SEAL.fullmatch(line)
    return seal is not None and zlib.crc32(b"}", zlib.crc32(seal[1])) == int(seal[2], 16)


def unsealed(line: bytes) -> dict[str, Any]:
    """Return the content of a line written by `sealed`. Raises ValueError, whose message follows the line's name."""
    seal = _SEAL.fullmatch(line)
    if seal is None:
        raise ValueError("has no checksum")
    text = seal[1] + b"}"
    if zlib.crc32(text) != int(seal[2], 16):
        raise ValueError("does not match its checksum")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value
