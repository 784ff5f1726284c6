from __future__ import annotations

import gc
import threading
from concurrent.futures import wait
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from embedcore.images.decode import BadImageError
from embedcore.images.geometry import Geometry
from embedcore.images.pixel_store import StreamedPixels
from embedcore.images.workers import PixelReader


@dataclass
class Levels:
    """Image i has the grey level i; records which were loaded."""

    count: int
    loaded: list[int] = field(default_factory=list)
    decoder = "none"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        self.loaded.append(index)
        if index == 66:
            raise BadImageError("66", "broken")
        return Image.new("RGB", (8, 8), (index,) * 3)


@pytest.fixture
def source() -> Levels:
    return Levels(100)


@pytest.fixture
def stream(source: Levels) -> StreamedPixels:
    digests = tuple(map(str, range(source.count)))
    return StreamedPixels(PixelReader(source, digests, Geometry(4, 4, "bilinear", 1.0, "center")), workers=2)


def test_ranges_in_order_are_each_decoded_once(source: Levels, stream: StreamedPixels) -> None:
    rows = np.concatenate([stream.read(start, start + 6) for start in range(0, 60, 6)])
    np.testing.assert_array_equal(rows[:, 2, 2, 0], range(60))
    wait(stream._ahead.values())
    assert sorted(source.loaded) == sorted(set(source.loaded))
    assert max(source.loaded) < 66  # one range ahead, no more


def test_jumps(stream: StreamedPixels) -> None:
    for start in (40, 0, 90, 3):
        rows = stream.read(start, start + 5)
        np.testing.assert_array_equal(rows[:, 0, 0, 1], range(start, start + 5))


def test_the_last_range_reads_nothing_beyond(source: Levels, stream: StreamedPixels) -> None:
    assert stream.read(95, 100).shape == (5, 4, 4, 3)
    assert sorted(source.loaded) == list(range(95, 100))


def test_a_bad_image_raises_when_its_range_is_read(stream: StreamedPixels) -> None:
    stream.read(50, 60)
    with pytest.raises(BadImageError, match="'66': broken"):
        stream.read(60, 70)
    assert stream.read(70, 72)[1, 0, 0, 0] == 71


def test_no_thread_is_left(source: Levels) -> None:
    digests = tuple(map(str, range(source.count)))
    stream = StreamedPixels(PixelReader(source, digests, Geometry(4, 4, "bilinear", 1.0, "center")), workers=2)
    stream.read(0, 10)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("embedcore-pixels")]
    assert threads
    del stream
    gc.collect()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
