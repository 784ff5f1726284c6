"""Files that are whole or not there, and what tells that their content is as it was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""How the name of a file ends that is still being written, or was left so by a process that was killed."""

_PIECE = 2**20  # bytes
_SEAL = re.compile(rb'(.*), "crc32": "([0-9a-f]{8})"\}\n?', re.DOTALL)


def user_path(text: str | Path) -> Path:
    """A path as a user gives it: ``~`` is the home folder, also after a ``=``, where a shell leaves it as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path's own raises where ~name is nobody's home)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content in hex digits, read in pieces. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which gets the name ``path`` when the block ends without an exception. Raises OSError.

    A reader sees the old file or the new one, also after a power cut; a link in the place of ``path`` is replaced, not
    followed.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sealed(content: Mapping[str, Any]) -> bytes:
    r"""One line of strict JSON, ASCII, that ends with a checksum of itself.

    >>> sealed({"a": 1})
    b'{"a": 1, "crc32": "fba18e97"}\n'
    """
    # ASCII only, so that no reader can take a character of a text for the end of a line.
    text = json.dumps(content, ensure_ascii=True, allow_nan=False).encode()
    return b'%s, "crc32": "%08x"}\n' % (text[:-1], zlib.crc32(text))


def is_sealed(line: bytes) -> bool:
    """Whether a line is as `sealed` has made it, without reading what it says."""
    seal = _SEAL.fullmatch(line)
    return seal is not None and zlib.crc32(b"}", zlib.crc32(seal[1])) == int(seal[2], 16)


def unsealed(line: bytes) -> dict[str, Any]:
    """What a line says that :func:`sealed` has made. Raises ValueError for any other, worded to follow its name."""
    seal = _SEAL.fullmatch(line)
    if seal is None:
        raise ValueError("has no checksum")
    text = seal[1] + b"}"
    if zlib.crc32(text) != int(seal[2], 16):
        raise ValueError("does not fit its checksum")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value
