"""Image files of any kind → 8-bit RGB as people see them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from embedcore.errors import UsageError

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255, 255)

# What Pillow's readers raise on damaged files, beside OSError: each was seen from one of its formats.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)


class BadImageError(UsageError):
    """An image that cannot be read; ``reason`` says why, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read image {self.name!r}: {self.reason}"


def load_rgb(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode the first frame of an image file to mode RGB; see :func:`to_rgb`.

    ``name`` is how the image is called in an error. Raises BadImageError for whatever cannot be opened or decoded
    whole.
    """
    try:
        with Image.open(file) as image:
            return to_rgb(image)
    except UnidentifiedImageError as error:
        raise BadImageError(name, "not an image that Pillow can read") from error
    except _DAMAGE as error:
        raise BadImageError(name, _reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as people see it: upright (EXIF), transparency on white, deep grey levels scaled to 8 bits, mode RGB.

    An opaque 8-bit image gives just what ``image.convert("RGB")`` gives, which is what timm's pipeline sees.
    """
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _scale_to_8_bits(image).convert("RGB")
    if _may_be_transparent(image):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (
        *_DAMAGE,
        AttributeError,
        UserWarning,
    ):  # broken EXIF does not make the picture unreadable: viewers show it unturned
        return 1
    return value if isinstance(value, int) else 1


def _may_be_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels deeper than 8 bits over their whole range, where Pillow's own conversion would clip them at 255.

    Unsigned 16 bits divide by 257 (65535 → 255). Mode ``I`` also holds 16-bit data in some readers, so that its range
    is 16 bits unless a value exceeds it. Floats are taken as 0–1 unless a value exceeds that, then as 0–255.
    """
    levels = np.asarray(image).astype(np.float64)
    levels = np.nan_to_num(levels, nan=0.0, posinf=0.0, neginf=0.0)
    highest = levels.max(initial=0.0)
    usual, wider = (1.0, 255.0) if image.mode == "F" else (65535.0, 2.0**31 - 1)
    full = usual if highest <= usual else wider
    return Image.fromarray(np.rint(np.clip(levels / full, 0.0, 1.0) * 255.0).astype(np.uint8))


def _reason(error: BaseException) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        said = error.strerror or said
    kind = type(error).__name__
    return said if said and isinstance(error, OSError) else f"{kind}: {said}" if said else kind
