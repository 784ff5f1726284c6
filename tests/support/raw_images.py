"""Image files byte by byte, for content that no library writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, bits: int, colour_type: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG of `rows`, each row beginning with the number of its filter; `chunks` come before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    before = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def raw_tiff(width: int, height: int, bits: int, data: bytes, tags: Mapping[int, int] = {}) -> bytes:
    """A grey TIFF, little-endian, of one strip; `tags` besides, such as 339 (sample format) or 262 (photometric)."""
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height, 279: len(data), **tags}
    start = 8 + 2 + 12 * (len(values) + 1) + 4
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted({**values, 273: start}.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(values) + 1) + rows + bytes(4) + data


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an ISO base media file."""
    return struct.pack(">I", 8 + len(content)) + kind + content
