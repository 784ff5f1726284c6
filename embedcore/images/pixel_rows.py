"""The work on one block of a pixel store: decode, transform, write. Runs in workers and in the process itself alike."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedcore.images.decode import BadImageError
from embedcore.images.sources import ImageSource

if TYPE_CHECKING:
    from embedcore.images.geometry import Geometry

BLOCK = 32  # images: the unit of work and of the checksums


@dataclass(frozen=True)
class PixelReader:
    """Gives the pixels of a dataset's images in one geometry, each made when asked for."""

    source: ImageSource
    digests: tuple[str, ...]
    """Content digest of each image, as it was when the dataset was loaded."""
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: height, width, 3."""
        return self.geometry.height, self.geometry.width, 3

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """uint8 [h, w, 3].

        Raises BadImageError for an image that cannot be read, or has changed since the dataset was loaded.
        """
        name = self.source.name(index)
        try:
            return self.geometry.transform()(self.source.load(index, self.digests[index]))
        except OSError as error:
            raise BadImageError(name, error.strerror or str(error)) from error
        except (ValueError, MemoryError, OverflowError) as error:  # such as one pixel high and a million wide
            raise BadImageError(name, f"it cannot be resized ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class WrittenBlock:
    """What became of the images start to stop - 1."""

    start: int
    stop: int
    checksum: int
    """CRC-32 of the block's pixels."""
    bad: tuple[tuple[str, str], ...]
    """Name and reason of the images that could not be read."""


def blocks_of(total: int) -> list[tuple[int, int]]:
    """Start and stop of each block.

    >>> blocks_of(70)
    [(0, 32), (32, 64), (64, 70)]
    """
    return [(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK)]


def write_block(reader: PixelReader, path: Path, offset: int, start: int, stop: int) -> WrittenBlock:
    """Make the pixels of a block and write them at their place in the file, whose rows begin at byte ``offset``.

    Written with ``write``, not through a memory map: on a full disk a map kills the process (SIGBUS) where this raises
    OSError.
    """
    rows = np.zeros((stop - start, *reader.shape), np.uint8)
    bad = []
    for index in range(start, stop):
        try:
            rows[index - start] = reader.pixels(index)
        except BadImageError as error:
            bad.append((error.name, error.reason))
    with path.open("r+b", buffering=0) as file:
        file.seek(offset + start * rows[0].nbytes)
        remaining = memoryview(rows.data).cast("B")
        while remaining:
            remaining = remaining[file.write(remaining) :]
    return WrittenBlock(start, stop, zlib.crc32(rows.data), tuple(bad))
