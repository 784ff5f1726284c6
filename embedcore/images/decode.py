"""Image files of any kind → 8-bit RGB as people see them."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from embedcore.errors import UsageError
from embedcore.images import plugins
from embedcore.plain import one_line

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
_SIDEWAYS = (5, 6, 7, 8)  # of these, columns become rows
_PREVIEW = 128  # pixels
_WHITE = (255, 255, 255, 255)

# Pixels. An image just below Pillow's limit, in a palette with transparency, takes 2 GB on the way to RGB: as many
# threads as decode, each with such an image, would take more than the machine has.
_LARGE = 32_000_000
_one_large_image = threading.Lock()

# As Python keeps the filter "ignore" of a category.
_NO_WARNING = ("ignore", None, Image.DecompressionBombWarning, None, 0)

# What Pillow's readers raise on damaged files, beside OSError. Warnings, where the user has made them errors.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Warning),
)

# Formats whose further frames are an animation; those of others are pages (TIFF) or a camera's extras (MPO).
_ANIMATED_FORMATS = frozenset({"GIF", "PNG", "WEBP", "AVIF"})


class BadImageError(UsageError):
    """An image that cannot be read; ``reason`` says why, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read image {self.name!r}: {self.reason}"


@dataclass(frozen=True)
class ImageFacts:
    """What decoding an image tells. Only of images that can be decoded."""

    width: int
    """Upright, in pixels."""
    height: int
    mode: str
    """Pillow's mode of the file: RGB, L, P, CMYK, I;16, …"""
    format: str
    """Pillow's name of the file's format: JPEG, PNG, …"""
    animated: bool = False
    """Whether frames follow the one that is taken."""
    perceptual_hash: int | None = None
    """None where it was not asked for."""


def load_rgb(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode the first frame of an image file to mode RGB; see :func:`to_rgb`.

    ``name`` is how the image is called in an error. Raises BadImageError for whatever cannot be opened or decoded
    whole.
    """
    with _opened(file, name) as image:
        return _in_turn(image, image.width * image.height)


def load_preview(file: Path | BinaryIO, name: str) -> tuple[Image.Image, ImageFacts]:
    """As :func:`load_rgb`, with the facts of the whole image; of a JPEG, half, a quarter or an eighth of the size.

    A JPEG's decoder reads and checks all of the file for that too, at up to a third of the cost. No side becomes
    shorter than 128 pixels by it.
    """
    with _opened(file, name) as image:
        mode, kind, size = image.mode, image.format or "unknown", image.size
        image.draft(None, (_PREVIEW, _PREVIEW))
        # Of a progressive JPEG all coefficients are held, however small it is read.
        held = size if image.info.get("progressive") else image.size
        # Before the orientation is asked for, which would swallow what is wrong with a PNG.
        rgb = _in_turn(image, held[0] * held[1])
        width, height = reversed(size) if _orientation(image) in _SIDEWAYS else size
        return rgb, ImageFacts(width, height, mode, kind, kind in _ANIMATED_FORMATS and _has_more_frames(image))


def _in_turn(image: Image.Image, pixels: int) -> Image.Image:
    """As :func:`to_rgb`, which holds so many pixels; of the large images of this process one is decoded at a time."""
    if pixels <= _LARGE:
        return to_rgb(image)
    # In a thread of its own: glibc keeps for each thread that has decoded a large image what that took, but a new
    # thread takes over what is kept for one that has ended.
    with _one_large_image, ThreadPoolExecutor(1, thread_name_prefix="embedcore-large-image") as pool:
        return pool.submit(to_rgb, image).result()


@contextlib.contextmanager
def _opened(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    # No warning for an image that is large but below the limit at which Pillow refuses it. The filter stays: threads
    # that each saved and restored the filters would restore each other's. Set only where it is not the first one, since
    # a change of the filters lets Python show again what it has shown once.
    if warnings.filters[:1] != [_NO_WARNING]:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    plugins.register()
    try:
        with Image.open(file) as image:
            yield image
    except UnidentifiedImageError as error:
        size = file.stat().st_size if isinstance(file, Path) else file.seek(0, os.SEEK_END)
        plugin = plugins.PLUGINS.get(Path(name).suffix.lower())
        hint = f" (pip install {plugin.package})" if plugin and plugin not in plugins.installed().values() else ""
        reason = f"not an image that Pillow can read{hint}" if size else "the file is empty"
        raise BadImageError(name, reason) from error
    except DAMAGE as error:
        raise BadImageError(name, reason_of(error)) from error


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except DAMAGE:  # in a frame that is not taken
        return True


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
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DAMAGE:  # broken EXIF does not make the picture unreadable: viewers show it unturned
        return 1
    return value if isinstance(value, int) else 1


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


def reason_of(error: BaseException) -> str:
    """What an error says, on one line and without characters that a terminal would obey (it may quote the file)."""
    said = one_line(str(getattr(error, "strerror", None) or error))
    kind = type(error).__name__
    return said if said and isinstance(error, OSError) else f"{kind}: {said}" if said else kind
