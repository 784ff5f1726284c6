"""Conversion to 8 bits of deep grey levels and of PNG's transparent colours.

Pillow clips levels at 255, and compares the file's transparent colour with pixels that it has rescaled.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from embedcore.errors import EmbedcoreError

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # their values

# An image whose highest level is in the lowest sixteenth of its range is nearly black, such as 12 bits stored as 16.
_DARK = 16
_ROWS = 256  # converted at a time, which bounds the memory for floats


class UnknownScale(EmbedcoreError, ValueError):
    """The white level of an image is unknown."""


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's raw mode of the file, such as ``RGB;16B``; "" once the pixels are loaded."""
    if not getattr(image, "tile", None):
        return ""
    arguments = image.tile[0][3]  # type: ignore[attr-defined]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def to_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels deeper than 8 bits by their whole range; mode L.

    Integers have 16 bits (65535 is white) unless a TIFF's tags give 12, or signed 16 (32767 is white). Floats go from 0
    to 1. A TIFF whose zero is white is inverted, and PNG's transparent level becomes white.

    Raises UnknownScale for levels outside of that range (32-bit integers, floats from 0 to 255), for floats that are
    not finite, and for levels in the lowest sixteenth of the range only (12 bits stored as 16).
    """
    levels = np.asarray(image)
    lowest, highest, white = levels.min(), levels.max(), _white(image)
    wanted = "floats from 0 to 1" if image.mode == "F" else f"levels from 0 to {white:.0f}"
    span = f"levels from {lowest:g} to {highest:g}" if image.mode == "F" else f"levels from {lowest} to {highest}"
    if not 0 <= lowest <= highest <= white:  # also for NaN
        raise UnknownScale(f"{span}, expected {wanted}: save it as 8 bits")
    if 0 < highest <= white / _DARK:
        raise UnknownScale(
            f"{span} are nearly black, expected {wanted}: scale them (12 bits stored as 16: by 16), or save it as "
            "8 bits"
        )
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    grey = np.empty(levels.shape, np.uint8)
    for top in range(0, len(grey), _ROWS):
        share = levels[top : top + _ROWS] / white
        grey[top : top + _ROWS] = np.rint((1 - share if inverted else share) * 255)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey)


def check_high_bytes(image: Image.Image) -> None:
    """Raise UnknownScale for 16-bit colours that are nearly black in their high bytes, which Pillow keeps."""
    highest = max(band[1] for band in image.getextrema()[:3])  # type: ignore[index]
    if 0 < highest < 256 // _DARK:
        raise UnknownScale(
            f"16-bit colours up to {256 * highest + 255} at most are nearly black: scale them (12 bits stored as 16: "
            "by 16), or save it as 8 bits"
        )


def transparency_of(image: Image.Image, raw: str) -> object:
    """Return the transparent colour of an image in Pillow's pixel values; None if there is none.

    Pillow scales PNG's grey levels of 2 and 4 bits to 8, and keeps the high bytes of 16-bit colours.
    """
    transparent = image.info.get("transparency")
    if raw in ("L;2", "L;4") and isinstance(transparent, int):
        return transparent * (85 if raw == "L;2" else 17)
    if raw.startswith("RGB;16") and isinstance(transparent, tuple):
        return tuple(level >> 8 for level in transparent)
    return transparent


def _white(image: Image.Image) -> float:
    if image.mode == "F":
        return 1.0
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    return float(2 ** (15 if signed and bits == 16 else min(bits, 16)) - 1)
