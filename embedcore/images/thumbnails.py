"""Thumbnails of a dataset's images, for reports."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from PIL import Image

from embedcore.errors import EmbedcoreError
from embedcore.images.decode import ImageUnavailable
from embedcore.images.pixel_store import StoredPixels
from embedcore.images.workers import usable_cpus

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore

EDGE = 96
"""Pixels of the longer side."""
_AT_ONCE = 64


def thumbnails(
    dataset: Dataset, indices: Iterable[int], store: PixelStore | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield the index of each image in the dataset and its thumbnail, a WebP file, in the order given.

    Images that can no longer be read are left out. With a `store` on disk the thumbnails are the pixels that a model
    sees, cropped and perhaps squashed; else the whole image.
    """
    pixels = store if isinstance(store, StoredPixels) else None
    unavailable = threading.Event()  # no further image waits for a lost file server

    def thumbnail(index: int) -> bytes | None:
        with contextlib.suppress(EmbedcoreError):
            if pixels is not None:
                return encoded(Image.fromarray(pixels.read(index, index + 1)[0]))
            try:
                return None if unavailable.is_set() else encoded(dataset.images.preview(index)[0])
            except ImageUnavailable:
                unavailable.set()
        return None

    rest = iter(indices)
    with ThreadPoolExecutor(min(8, usable_cpus()), thread_name_prefix="embedcore-thumbnails") as pool:
        while some := list(itertools.islice(rest, _AT_ONCE)):
            for index, made in zip(some, pool.map(thumbnail, some), strict=True):
                if made is not None:
                    yield index, made


def encoded(image: Image.Image) -> bytes:
    """Return an RGB image as WebP, at most `EDGE` pixels on either side."""
    small = image.copy()
    small.thumbnail((EDGE, EDGE), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=70, method=2)
    return out.getvalue()
