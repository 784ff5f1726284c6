"""Decode image files of any format to 8-bit RGB: upright, transparency on white."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from embedcore.errors import EmbedcoreError, UsageError, option
from embedcore.images import levels, plugins
from embedcore.images.containers import ORIENTATION, restore_orientation
from embedcore.images.retries import PAUSES_S, is_transient
from embedcore.plain import one_line

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_PREVIEW = 128  # pixels
_WHITE = (255, 255, 255, 255)

MAX_MEGAPIXELS = 250.0
"""Default limit of an image's size. A phone's photo of 200 megapixels takes up to 1.6 GB of memory as JPEG, and 2.6 GB
as a palette image with transparency."""

MOST_ELONGATED = 256
"""Largest ratio of the sides. timm's models scale the shorter side to at most 1024 pixels and then crop. The scaled
image takes at most 1 GiB: 4 bytes * 1024 * 1024 * 256."""

# Pixels. Larger images are decoded one at a time: together they might not fit in memory.
_LARGE = 32_000_000
_one_large_image = threading.Lock()

# Python's representation of the filter "ignore" for this category.
_NO_WARNING = ("ignore", None, Image.DecompressionBombWarning, None, 0)

# What Pillow raises on damaged files; Warning for users who turn warnings into errors.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Warning),
)

# In other formats further frames are pages (TIFF) or a camera's additional images (MPO).
_ANIMATED_FORMATS = frozenset({"GIF", "PNG", "WEBP", "AVIF"})


class ImageError(EmbedcoreError):
    """An error of one image; ``reason`` does not contain the image's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason


class BadImageError(ImageError, UsageError):
    """An image that cannot be read."""

    def __str__(self) -> str:
        return f"cannot read image {self.name!r}: {self.reason}"


class ImageUnavailable(ImageError):
    """An image that could not be read in several tries because of errors that may be temporary."""

    def __str__(self) -> str:
        tries = f"could not be read in {len(PAUSES_S) + 1} tries"
        return f"image {self.name!r} {tries}: {self.reason}; the image may be sound: retry"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Properties of an image that can be decoded."""

    width: int
    """Of the upright image, in pixels."""
    height: int
    mode: str
    """Pillow's mode of the file: RGB, L, P, CMYK, I;16, …"""
    format: str
    """Pillow's name of the file's format: JPEG, PNG, …"""
    animated: bool = False
    """Whether more frames follow the first, which is used."""
    perceptual_hash: int | None = None
    """None if it was not requested."""


def load_rgb(content: bytes, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Decode the first frame of an image file's content to mode RGB; see :func:`to_rgb`.

    ``name`` is the image's name in errors. Raises BadImageError for an image that cannot be opened or decoded whole, or
    has more than ``max_megapixels``; transient OSError and MemoryError (:func:`retries.is_transient`) are not wrapped.
    """
    with _opened(content, name, max_megapixels) as image:
        return _in_turn(image, image.width * image.height)


def load_preview(content: bytes, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[Image.Image, ImageFacts]:
    """Decode an image as :func:`load_rgb` does, a JPEG at 1/2, 1/4 or 1/8 of its size; also return its facts.

    The smaller JPEG costs as little as a third and is still read and checked to its end. No side is reduced below 128
    pixels.
    """
    with _opened(content, name, max_megapixels) as image:
        mode, kind, size = image.mode, image.format or "unknown", image.size
        image.draft(None, (_PREVIEW, _PREVIEW))
        # All coefficients of a progressive JPEG are in memory, whatever the size.
        held = size if image.info.get("progressive") else image.size
        # First, since reading the orientation would hide errors in a PNG.
        rgb = _in_turn(image, held[0] * held[1])
        width, height = reversed(size) if _orientation(image) in _SIDEWAYS else size
        return rgb, ImageFacts(width, height, mode, kind, kind in _ANIMATED_FORMATS and _has_more_frames(image))


def _in_turn(image: Image.Image, pixels: int) -> Image.Image:
    """Call :func:`to_rgb`, which holds ``pixels`` in memory; the process decodes one large image at a time."""
    if pixels <= _LARGE:
        return to_rgb(image)
    # In a new thread: glibc keeps the memory of each thread that has decoded a large image, and a new thread reuses
    # that of one that has ended.
    with _one_large_image, ThreadPoolExecutor(1, thread_name_prefix="embedcore-large-image") as pool:
        return pool.submit(to_rgb, image).result()


@contextlib.contextmanager
def _opened(content: bytes, name: str, max_megapixels: float) -> Iterator[Image.Image]:
    # No warning for a large image below the limit. The filter stays, since threads that restored the filters would
    # restore each other's. It is set only once, since a change of the filters makes Python repeat earlier warnings.
    if warnings.filters[:1] != [_NO_WARNING]:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    plugins.register()
    stream = io.BytesIO(content)
    with damage_reported(name), _pixel_limit(max_megapixels):
        try:
            with Image.open(stream) as image:
                restore_orientation(image, stream)
                yield image
        except UnidentifiedImageError as error:
            plugin = plugins.PLUGINS.get(Path(name).suffix.lower())
            hint = f" (pip install {plugin.package})" if plugin and plugin not in plugins.installed().values() else ""
            reason = f"not an image that Pillow can read{hint}" if content else "the file is empty"
            raise BadImageError(name, reason) from error
        except Image.DecompressionBombError as error:
            raise BadImageError(name, too_many_pixels(max_megapixels)) from error


@contextlib.contextmanager
def damage_reported(name: str) -> Iterator[None]:
    """Raise BadImageError for errors of :data:`DAMAGE`, except transient ones, which are not changed."""
    try:
        yield
    except DAMAGE as error:
        if is_transient(error):
            raise
        raise BadImageError(name, reason_of(error)) from error


def too_many_pixels(max_megapixels: float) -> str:
    """Return why a larger image is not read."""
    limit = f"({option('max_megapixels')} sets the limit)"
    return f"more than {max_megapixels:g} megapixels: a decompression bomb? {limit}"


def shape_refusal(width: int, height: int, max_megapixels: float) -> str:
    """Return why an image of this size in pixels is not read; "" if it is."""
    if width * height > max_megapixels * 1e6:
        return too_many_pixels(max_megapixels)
    return elongation_refusal(width, height)


def elongation_refusal(width: int, height: int) -> str:
    """Return why an image of this size in pixels cannot be scaled; "" if it can."""
    if max(width, height) > MOST_ELONGATED * min(width, height):
        return f"{width} x {height} pixels: too elongated (more than {MOST_ELONGATED} to 1) to be scaled"
    return ""


# Pillow's limit is global: it is raised while images are decoded here, then restored.
_limits: list[int] = []
_limits_lock = threading.Lock()
_limit_before: int | None = None


@contextlib.contextmanager
def _pixel_limit(max_megapixels: float) -> Iterator[None]:
    global _limit_before
    limit = math.ceil(max_megapixels * 1e6 / 2)  # Pillow refuses images of more than twice as many pixels
    with _limits_lock:
        if not _limits:
            _limit_before = Image.MAX_IMAGE_PIXELS
        _limits.append(limit)
        Image.MAX_IMAGE_PIXELS = max(_limits)
    try:
        yield
    finally:
        with _limits_lock:
            _limits.remove(limit)
            Image.MAX_IMAGE_PIXELS = max(_limits) if _limits else _limit_before


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except DAMAGE:  # in a later frame
        return True


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to mode RGB: upright (EXIF), transparency on white, deep grey levels scaled to 8 bits.

    An opaque 8-bit image becomes what ``image.convert("RGB")`` returns, as in timm's pipeline: colour profiles and
    PNG's gAMA are not applied, and a CMYK JPEG follows Adobe's convention with and without its marker.

    Raises UnknownScale for deep levels whose white is unknown, and what Pillow raises.
    """
    raw = levels.raw_mode(image)
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;"):  # grey with more than 8 bits, or floats
        image = levels.to_8_bits(image)
    elif ";16" in raw:
        levels.check_high_bytes(image)
    transparency = levels.transparency_of(image, raw)
    if transparency != image.info.get("transparency"):
        image = image.copy()
        image.info["transparency"] = transparency
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:  # with broken EXIF viewers show the image unrotated
        return 1
    return value if isinstance(value, int) else 1


def reason_of(error: BaseException) -> str:
    """Return an error's text on one line, without control characters: it may quote the file."""
    text = one_line(str(getattr(error, "strerror", None) or error))
    kind = type(error).__name__
    return text if text and isinstance(error, OSError | levels.UnknownScale) else f"{kind}: {text}" if text else kind
