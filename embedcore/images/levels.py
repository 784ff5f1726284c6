"""Sample values that 8 bits do not hold, made 8-bit: deep grey levels, and PNG's transparent colours.

Pillow's own conversions clip at 255, and compare a transparent colour as the file has it with pixels that it has
rescaled.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2  # their values

# An image whose highest level is in the lowest sixteenth of its range is nearly black: 12 bits stored as 16, say.
_DARK = 16
_ROWS = 256  # converted at a time, so that the floats of a large image are not all in memory


class UnknownScale(ValueError):
    """The levels of an image do not say which of them is white."""


def raw_mode(image: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words such as ``RGB;16B``; "" once the pixels are loaded."""
    if not getattr(image, "tile", None):
        return ""
    arguments = image.tile[0][3]  # type: ignore[attr-defined]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def is_deep(image: Image.Image) -> bool:
    """Whether the image is grey of more than 8 bits, or of floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def to_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels deeper than 8 bits over the whole of their range; mode L.

    Integers have 16 bits (65535 is white) unless a TIFF's tags say 12, or signed 16 (32767 is white). Floats go from 0
    to 1. A TIFF whose zero is white is inverted, and PNG's transparent level is white.

    Raises UnknownScale for levels outside of that range (32-bit integers, floats from 0 to 255), for floats that are
    not finite, and where all but black ones are within the lowest sixteenth (12 bits stored as 16): these would become
    all white, clipped or nearly black.
    """
    levels = np.asarray(image)
    lowest, highest, white = levels.min(), levels.max(), _white(image)
    wanted = "floats from 0 to 1" if image.mode == "F" else f"levels from 0 to {white:.0f}"
    span = f"levels from {lowest:g} to {highest:g}" if image.mode == "F" else f"levels from {lowest} to {highest}"
    if not 0 <= lowest <= highest <= white:  # nor NaN
        raise UnknownScale(f"{span} where {wanted} are read: save it as 8 bits")
    if 0 < highest <= white / _DARK:
        raise UnknownScale(
            f"{span} are nearly black where {wanted} are read: scale them (12 bits stored as 16: by 16), or save it as "
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
    """Raise UnknownScale where of 16-bit colours, of which Pillow keeps the high bytes, hardly anything is left."""
    highest = max(band[1] for band in image.getextrema()[:3])  # type: ignore[index]
    if 0 < highest < 256 // _DARK:
        raise UnknownScale(
            f"16-bit colours up to {256 * highest + 255} at most are nearly black: scale them (12 bits stored as 16: "
            "by 16), or save it as 8 bits"
        )


def transparency_of(image: Image.Image, raw: str) -> object:
    """The transparent colour of an image in the values that its pixels have in Pillow; None for none.

    Pillow scales PNG's grey levels of 2 and 4 bits to 8, and of 16-bit colours keeps the high bytes.
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
