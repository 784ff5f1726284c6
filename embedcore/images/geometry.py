"""Geometry: the resize and crop part of a model's eval transform, without normalisation.

Models of equal geometry see the same pixels, which are computed and stored once.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedcore.errors import UsageError
from embedcore.zoo.transforms import DataConfig, pixel_transform

PROTOCOLS = ("native", "square224")
PixelTransform = Callable[[Image.Image], NDArray[np.uint8]]

_SQUARE = 224


@dataclass(frozen=True)
class Geometry:
    """The settings that determine the pixels of a model's input."""

    height: int
    width: int
    interpolation: str
    crop_pct: float
    crop_mode: str
    border: tuple[int, int, int] | None = None
    """Colour around the image in crop mode ``border``, 0–255; None in other modes."""
    square: int | None = None
    """Edge of the square to which the image is scaled first (protocol ``square224``); else None."""

    @property
    def key(self) -> str:
        """A short, stable name, fit for file names."""
        parts = [f"{self.height}x{self.width}", f"{self.crop_mode}{self.crop_pct!r}", self.interpolation]
        if self.border is not None:
            parts.append("border" + bytes(self.border).hex())
        if self.square is not None:
            parts.append(f"square{self.square}")
        return "-".join(parts)

    @functools.lru_cache(maxsize=64)  # noqa: B019 (by value; a geometry is a few numbers)
    def transform(self) -> PixelTransform:
        """Return the transform of an RGB image to uint8 [height, width, 3], C-contiguous."""
        scale_and_crop = pixel_transform(
            size=(self.height, self.width),
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            mean=[level / 255 for level in self.border or (0, 0, 0)],
        )
        if self.square is None:
            return scale_and_crop
        square = (self.square, self.square)
        return lambda image: scale_and_crop(image.resize(square, Image.Resampling.BICUBIC))

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def behaviour(self) -> str:
        """Return a digest (hex) of the transform's output for fixed images.

        It changes when another timm, torchvision or Pillow resizes or crops differently.
        """
        digest = hashlib.sha256()
        for height, width in ((97, 131), (211, 64), (150, 150)):
            row, column = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
            levels = (row * 37 + column * 91 + row * column * (3 + np.arange(3))) % 256
            digest.update(self.transform()(Image.fromarray(levels.astype(np.uint8))).data)
        return digest.hexdigest()


def geometry_of(config: DataConfig, protocol: str = "native") -> Geometry:
    """Return the geometry of a model under a protocol.

    ``native``: the tag's own eval transform. ``square224``: the image is scaled to 224×224 (bicubic, aspect ratio not
    kept), then to the model's input size with the tag's filter, without a crop. Raises UsageError for other protocols.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}: one of {', '.join(PROTOCOLS)}")
    _, height, width = config.input_size
    if protocol == "square224":
        same_size = height == width == _SQUARE  # the second scaling does nothing: its filter does not matter
        return Geometry(height, width, "bicubic" if same_size else config.interpolation, 1.0, "squash", square=_SQUARE)
    red, green, blue = (round(255 * level) for level in config.mean)
    border = (red, green, blue) if config.crop_mode == "border" else None
    return Geometry(height, width, config.interpolation, config.crop_pct, config.crop_mode, border)
