"""Views: a random crop of each image, which takes the place of a label where there is none."""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from embedcore.images.decode import ImageFacts
from embedcore.images.sources import ImageSource

AREA = (0.2, 0.6)
"""Smallest and largest share of an image's area."""
ASPECT = 4 / 3
"""Largest factor between the aspect ratios of an image and its view, so that every crop fits into its image."""
_DIGITS = 6  # of a share of a side, so that a view is the same on every machine


@dataclass(frozen=True)
class View:
    """A crop of an image, perhaps mirrored. Its place and size are shares of the image's sides."""

    image: str
    """SHA-256 (hex) of the image's content."""
    left: float
    top: float
    width: float
    height: float
    mirrored: bool

    @classmethod
    def drawn(cls, image: str, seed: int) -> View:
        """Return the view of the image of this digest. It depends on the content and the seed alone."""
        rng = np.random.default_rng((seed, zlib.crc32(image.encode())))
        area, ratio = rng.uniform(*AREA), ASPECT ** rng.uniform(-1, 1)
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        box = [round(float(share), _DIGITS) for share in (left, top, width, height)]
        return cls(image, box[0], box[1], box[2], box[3], mirrored=bool(rng.random() < 0.5))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the image's digest and the parameters."""
        parameters = f"view {self.left} {self.top} {self.width} {self.height} {self.mirrored}"
        return hashlib.sha256(f"{self.image} {parameters}".encode()).hexdigest()

    def of(self, image: Image.Image) -> Image.Image:
        """Return the view of the image, at least one pixel."""
        left, right = _pixels(self.left, self.width, image.width)
        top, bottom = _pixels(self.top, self.height, image.height)
        crop = image.crop((left, top, right, bottom))
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else crop


def _pixels(start: float, length: float, side: int) -> tuple[int, int]:
    """Return the first pixel of a part of a side, and the one after its last."""
    first = min(round(start * side), side - 1)
    return first, min(max(round((start + length) * side), first + 1), side)


@dataclass(frozen=True)
class ViewSource(ImageSource):
    """Images of another source and views of them: each item is an index there, and a `View` or None."""

    images: ImageSource

    def _item(self, index: int) -> tuple[int, View | None]:
        item: tuple[int, View | None] = self.items[index]
        return item

    @property
    def decoder(self) -> str:
        return self.images.decoder

    def name(self, index: int) -> str:
        place, view = self._item(index)
        return f"{self.images.name(place)}{'' if view is None else ' (view)'}"

    def content(self, index: int) -> bytes | Image.Image:
        place, view = self._item(index)
        return self.images.content(place) if view is None else view.of(self.images.load(place))

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        """See `ImageSource.load`; of a view, ``digest`` stands for that of its image."""
        place, view = self._item(index)
        if view is None:
            return self.images.load(place, digest)
        return view.of(self.images.load(place, digest and view.image))

    def preview(self, index: int) -> tuple[Image.Image, ImageFacts]:
        place, view = self._item(index)
        return self.images.preview(place) if view is None else super().preview(index)

    def digest(self, index: int) -> str:
        place, view = self._item(index)
        return self.images.digest(place) if view is None else view.digest
