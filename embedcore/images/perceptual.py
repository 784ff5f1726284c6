"""Perceptual hash: 64 bits that stay (almost) the same when an image is scaled, recompressed or slightly retouched."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_EDGE = 32  # pixels of the grey square that is looked at
_LOW = 8  # frequencies kept in each direction

# A coefficient of a square without any structure is not exactly 0 but a rounding error; those of real structure of one
# grey level are thousands of times larger.
_DIGITS = 6


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit "pHash" of an RGB image, 0 to 2**64 - 1.

    The image becomes a grey square of 32×32; of its cosine transform the 8×8 lowest frequencies each give a bit, namely
    whether they lie above the median of all but the mean level, which gives no bit of its own (Zauner, 2010,
    Implementation and Benchmarking of Perceptual Image Hash Functions, section 3.2.1). Images without structure have 0.
    """
    square = image.resize((_EDGE, _EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    cosines = _cosines()
    low = (cosines @ np.asarray(square, np.float64) @ cosines.T).round(_DIGITS).reshape(-1)
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@functools.lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """Rows 0 to 7 of the cosine transform (DCT-II) of 32 points, not normalised: float64 [8, 32]."""
    return np.cos(np.pi / _EDGE * np.arange(_LOW)[:, None] * (np.arange(_EDGE) + 0.5))
