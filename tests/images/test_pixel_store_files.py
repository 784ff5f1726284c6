from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.files import unsealed
from embedcore.images import pixel_store
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, open_pixel_store
from embedcore.images.store_files import is_held, sidecar_of

GEOMETRY = Geometry(8, 8, "bicubic", 0.9, "center")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoredPixels:
    from PIL import Image

    folder = tmp_path_factory.mktemp("module")
    for number in range(40):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 12), 50 + number).convert("RGB").save(path)
    opened = open_pixel_store(load_dataset(str(folder / "photos")), GEOMETRY, folder / "cache")
    assert isinstance(opened, StoredPixels)
    return opened


def described(store: StoredPixels) -> pixel_store.Description:
    content = unsealed(sidecar_of(store.path).read_bytes())
    return {name: value for name, value in content.items() if name not in ("checksums", "dataset")}


def sound_as_in_another_process(store: StoredPixels, wanted: pixel_store.Description) -> bool:
    pixel_store._sound_files.clear()
    return pixel_store.is_sound(store.path, wanted)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_either_file_is_noticed(store: StoredPixels, data: st.DataObject) -> None:
    wanted = described(store)
    file = data.draw(st.sampled_from([store.path, sidecar_of(store.path)]))
    content = file.read_bytes()
    # The header is the smaller part of the file, and the more intricate.
    place = data.draw(st.integers(0, 140) | st.integers(0, len(content) - 1))
    flipped = data.draw(st.integers(1, 255))
    try:
        file.write_bytes(content[:place] + bytes([content[place] ^ flipped]) + content[place + 1 :])
        assert not sound_as_in_another_process(store, wanted)
    finally:
        file.write_bytes(content)
    assert sound_as_in_another_process(store, wanted)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_of_another_length_is_noticed(store: StoredPixels, data: st.DataObject) -> None:
    wanted = described(store)
    file = data.draw(st.sampled_from([store.path, sidecar_of(store.path)]))
    content = file.read_bytes()
    changed = data.draw(
        st.integers(0, len(content) - 1).map(lambda end: content[:end])
        | st.binary(min_size=1, max_size=9).map(lambda more: content + more)
    )
    try:
        file.write_bytes(changed)
        assert not sound_as_in_another_process(store, wanted)
    finally:
        file.write_bytes(content)


def test_a_store_of_an_older_version_is_built_again_without_a_warning(
    store: StoredPixels, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = described(store)
    sidecar = sidecar_of(store.path)
    content = sidecar.read_bytes()
    try:
        old = {**json.loads(content), "format": 2, "seal": 1}
        del old["crc32"]
        sidecar.write_text(json.dumps(old) + "\n")
        assert not sound_as_in_another_process(store, wanted)
        assert caplog.records == []
        sidecar.write_bytes(content[:-11] + b'00000000"}\n')
        assert not sound_as_in_another_process(store, wanted)
        assert "is damaged" in caplog.text
    finally:
        sidecar.write_bytes(content)


def test_the_sidecar_names_the_dataset(store: StoredPixels) -> None:
    assert json.loads(sidecar_of(store.path).read_bytes())["dataset"] == "photos"


def test_a_store_is_held_while_it_is_referenced(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(str(make_folder({"a": 2, "b": 2})))
    store = open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
    again = open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
    assert isinstance(store, StoredPixels)
    path = store.path
    assert is_held(path)
    del store
    assert is_held(path)
    del again
    assert not is_held(path)


def test_many_openings_leave_no_file_open(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(str(make_folder({"a": 2, "b": 2})))
    opened = set()
    for _ in range(20):
        store = open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
        assert store.read(0, 4).shape == (4, 8, 8, 3)
        del store
        opened.add(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
    assert len(opened) == 1


def test_opening_notes_the_use_but_leaves_the_pixels_as_they_are(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(str(make_folder({"a": 2, "b": 2})))
    store = open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
    assert isinstance(store, StoredPixels)
    before = store.path.stat()
    os.utime(sidecar_of(store.path), (1000, 1000))
    open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
    assert sidecar_of(store.path).stat().st_mtime > 10**9
    assert store.path.stat().st_mtime_ns == before.st_mtime_ns
    np.testing.assert_array_equal(np.load(store.path), store.pixels)
