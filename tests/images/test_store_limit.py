from __future__ import annotations

import gc
import os
from pathlib import Path

import filelock
import numpy as np
import pytest

from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import FOLDER, StoredPixels, StreamedPixels, open_pixel_store
from embedcore.images.store_files import sidecar_of

SIZES = (16, 20, 24)


@pytest.fixture
def opened(make_folder, tmp_path: Path):
    """opened(edge, limit) opens the store of four images at that size; each call counts as a later use."""
    dataset = load_dataset(str(make_folder({"a": 2, "b": 2})))
    calls = []

    def opened(edge: int, limit: int | None = None):
        pixels = open_pixel_store(
            dataset, Geometry(edge, edge, "bilinear", 1.0, "squash"), tmp_path / "cache", limit=limit
        )
        calls.append(edge)
        if isinstance(pixels, StoredPixels):
            os.utime(sidecar_of(pixels.path), (len(calls), len(calls)))
        return pixels

    return opened


def edges(tmp_path: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1].split("x")[0]) for path in (tmp_path / "cache" / FOLDER).glob("*.npy"))


def test_the_least_recently_used_store_is_removed(opened, tmp_path: Path) -> None:
    for edge in (*SIZES, 16):  # 16 is the last one used
        opened(edge)
    gc.collect()
    total = sum(path.stat().st_size for path in (tmp_path / "cache" / FOLDER).glob("*.npy"))
    opened(28, limit=total + 4 * 28 * 28 * 3 - 1)  # one byte short
    assert edges(tmp_path) == [16, 24, 28]
    assert len(list((tmp_path / "cache" / FOLDER).glob("*.json"))) == 3


def test_a_store_that_does_not_fit_is_streamed_and_removes_nothing(opened, tmp_path: Path) -> None:
    opened(16)
    gc.collect()
    with pytest.warns(RuntimeWarning, match=r"no room for a pixel store of 6\.91 kB within the limit of 3\.00 kB"):
        streamed = opened(24, limit=3000)
    assert isinstance(streamed, StreamedPixels) and edges(tmp_path) == [16]
    assert np.array_equal(streamed.read(0, 4), opened(24).read(0, 4))


def test_a_store_in_use_is_kept(opened, tmp_path: Path) -> None:
    held = opened(16)
    with pytest.warns(RuntimeWarning, match="no room"):
        opened(24, limit=4 * 24 * 24 * 3 + 500)
    assert edges(tmp_path) == [16]
    assert held.read(0, 4).shape == (4, 16, 16, 3)


def test_an_existing_store_is_used_whatever_the_limit(opened, tmp_path: Path) -> None:
    opened(16)
    assert isinstance(opened(16, limit=1), StoredPixels)


def test_leftovers_of_a_killed_process_count_and_are_removed_first(opened, tmp_path: Path) -> None:
    opened(16)
    gc.collect()
    folder = tmp_path / "cache" / FOLDER
    (store,) = folder.glob("*.npy")
    left = folder / f"{store.stem[:-1]}x.npy.77-abcd1234.partial"
    left.write_bytes(bytes(10_000))
    opened(20, limit=store.stat().st_size + 4 * 20 * 20 * 3 + 9_999)  # one byte short
    assert not left.exists() and edges(tmp_path) == [16, 20]


def test_a_store_being_built_is_kept(opened, tmp_path: Path) -> None:
    opened(16)
    gc.collect()
    folder = tmp_path / "cache" / FOLDER
    (store,) = folder.glob("*.npy")
    partial = folder / f"{store.name}.77-abcd1234.partial"
    partial.write_bytes(bytes(10_000))
    with filelock.FileLock(f"{store}.lock"), pytest.warns(RuntimeWarning, match="no room"):
        opened(20, limit=10_100)
    assert partial.exists() and store.exists()
