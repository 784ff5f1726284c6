"""EXIF orientation of JPEG 2000 and HEIF files, which Pillow does not provide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

ORIENTATION = 0x0112  # EXIF tag

# UUID of the box with EXIF in JPEG 2000 files, a convention of exiftool and others.
_EXIF_IN_JP2 = b"JpgTiffExif->JP2"
_MOST_EXIF = 2**24  # bytes


def restore_orientation(image: Image.Image, file: BinaryIO) -> None:
    """Put the EXIF orientation of a JPEG 2000 or HEIF file into an image just opened from it.

    A HEIF decoder applies the file's rotation and mirror boxes. EXIF repeats them, so EXIF's orientation is used only
    in a file without such boxes.
    """
    if image.format not in ("JPEG2000", "HEIF"):
        return
    place = file.tell()
    try:
        if image.format == "JPEG2000":
            exif = next((box[16:] for kind, box in _boxes(file) if kind == b"uuid" and box[:16] == _EXIF_IN_JP2), None)
            if exif is not None:
                image.info["exif"] = exif
        elif (orientation := image.info.get("original_orientation") or 1) != 1:
            described = b"".join(box for kind, box in _boxes(file) if kind == b"meta")
            if b"irot" not in described and b"imir" not in described:
                image.getexif()[ORIENTATION] = orientation
    finally:
        file.seek(place)


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of the top-level boxes of an ISO base media file.

    The content is empty for boxes that cannot contain an orientation or are too large for one.
    """
    at = 0
    while True:
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind, head = int.from_bytes(header[:4], "big"), header[4:], 8
        if length == 1:
            length, head = int.from_bytes(file.read(8), "big"), 16
        if length == 0 or length >= head:
            size = length - head if length else -1
            yield kind, file.read(size) if kind in (b"uuid", b"meta") and size <= _MOST_EXIF else b""
        if length < head:  # 0: up to the end; else damaged
            return
        at += length
