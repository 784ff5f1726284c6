from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.images import pixel_store
from embedcore.images.dataset import Dataset
from embedcore.images.decode import load_rgb
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, StreamedPixels, open_pixel_store
from embedcore.images.workers import PixelReader

GEOMETRY = Geometry(32, 40, "bicubic", 0.9, "center")


@pytest.fixture
def dataset(make_folder) -> Dataset:
    return load_dataset(str(make_folder({"a": 4, "b": 5}, size=(37, 51))))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Counter:
    """A progress callback that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def plain_pixels(dataset: Dataset, geometry: Geometry = GEOMETRY) -> np.ndarray:
    return np.stack([geometry.transform()(dataset.images.load(index)) for index in range(len(dataset))])


def opened(dataset: Dataset, cache: Path, **kwargs: object) -> StoredPixels:
    store = open_pixel_store(dataset, GEOMETRY, cache, **kwargs)
    assert isinstance(store, StoredPixels)
    return store


@pytest.mark.parametrize(
    "geometry",
    [
        GEOMETRY,
        Geometry(48, 48, "bilinear", 0.875, "center"),
        Geometry(48, 32, "bicubic", 1.0, "squash"),
        Geometry(48, 48, "bicubic", 0.95, "border", border=(124, 116, 104)),
        Geometry(56, 56, "bicubic", 1.0, "squash", square=224),
    ],
    ids=lambda geometry: geometry.key,
)
def test_a_store_contains_the_transforms_output(dataset: Dataset, cache: Path, geometry: Geometry) -> None:
    store = open_pixel_store(dataset, geometry, cache)
    assert isinstance(store, StoredPixels)
    assert store.shape == store.pixels.shape == (9, geometry.height, geometry.width, 3) and len(store) == 9
    assert store.pixels.dtype == np.uint8 and store.pixels.flags.c_contiguous and not store.pixels.flags.writeable
    np.testing.assert_array_equal(store.pixels, plain_pixels(dataset, geometry))
    np.testing.assert_array_equal(store.read(3, 7), store.pixels[3:7])


def test_a_store_is_built_once(dataset: Dataset, cache: Path) -> None:
    first, second = Counter(), Counter()
    store = opened(dataset, cache, progress=first)
    made = store.path.stat()
    assert first.calls[-1] == (9, 9)
    assert opened(dataset, cache, progress=second).path.stat() == made
    assert second.calls == []


def test_nothing_but_the_store_remains(dataset: Dataset, cache: Path) -> None:
    path = opened(dataset, cache).path
    assert {file.name for file in path.parent.iterdir()} == {path.name, path.stem + ".json", path.name + ".lock"}


def test_each_geometry_and_content_has_a_file(dataset: Dataset, cache: Path, make_folder) -> None:
    other = load_dataset(str(make_folder({"a": 4, "c": 5}, root="others", size=(37, 51))))
    paths = {
        opened(dataset, cache).path,
        opened(other, cache).path,
        open_pixel_store(dataset, Geometry(32, 40, "bilinear", 0.9, "center"), cache).path,
    }
    assert len(paths) == 3


def test_another_process_gets_a_description_only(dataset: Dataset, cache: Path) -> None:
    store = opened(dataset, cache)
    described = pickle.dumps(store)
    assert len(described) < 500
    np.testing.assert_array_equal(pickle.loads(described).pixels, store.pixels)
    store.path.unlink()
    with pytest.raises(EmbedcoreError, match="can no longer be opened"):
        _ = pickle.loads(described).pixels
    np.save(store.path, np.zeros((9, 32, 41, 3), np.uint8))
    with pytest.raises(EmbedcoreError, match="has changed"):
        _ = pickle.loads(described).pixels


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def edit_sidecar(**changes: object):
    def edit(path: Path) -> None:
        sidecar = path.with_suffix(".json")
        sidecar.write_bytes(pixel_store.sealed({**pixel_store.unsealed(sidecar.read_bytes()), **changes}))

    return edit


DAMAGES = {
    "flipped byte": flip_a_byte,
    "truncated": lambda path: os.truncate(path, 5000),
    "no sidecar, as after a kill between the two renames": lambda path: path.with_suffix(".json").unlink(),
    "sidecar not JSON": lambda path: path.with_suffix(".json").write_text("{"),
    "sidecar a list": lambda path: path.with_suffix(".json").write_text("[]"),
    "other fingerprint": edit_sidecar(fingerprint="0" * 64),
    "other transform": edit_sidecar(made_by="0" * 64),
    "no checksums": edit_sidecar(checksums=None),
    "a sidecar of another format": edit_sidecar(format=1),
    "a sidecar without a seal": lambda path: path.with_suffix(".json").write_text(
        json.dumps(pixel_store.unsealed(path.with_suffix(".json").read_bytes()))
    ),
    "a pickle": lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_built_again(
    dataset: Dataset, cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    DAMAGES[damage](opened(dataset, cache).path)
    monkeypatch.setattr(pixel_store, "_sound_files", set())  # as in another process
    again = Counter()
    store = opened(dataset, cache, progress=again)
    assert again.calls[-1] == (9, 9)
    np.testing.assert_array_equal(store.pixels, plain_pixels(dataset))


def test_leftovers_of_a_killed_process_are_no_obstacle(dataset: Dataset, cache: Path) -> None:
    path = opened(dataset, cache).path
    path.rename(path.with_name(path.name + ".partial"))
    store = opened(dataset, cache)
    np.testing.assert_array_equal(store.pixels, plain_pixels(dataset))
    assert not path.with_name(path.name + ".partial").exists()


def test_two_at_once_share_one_build(dataset: Dataset, cache: Path) -> None:
    counters = [Counter() for _ in range(4)]
    threads = [threading.Thread(target=opened, args=(dataset, cache), kwargs={"progress": count}) for count in counters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(count.calls) for count in counters)[:3] == [0, 0, 0]
    np.testing.assert_array_equal(opened(dataset, cache).pixels, plain_pixels(dataset))


def test_all_bad_images_are_named_and_nothing_is_stored(make_folder, cache: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    dataset = load_dataset(str(root))
    (root / "a" / "001.png").write_bytes(b"no image")
    (root / "b" / "002.png").unlink()
    with pytest.raises(UsageError) as caught:
        open_pixel_store(dataset, GEOMETRY, cache)
    assert str(caught.value).splitlines() == [
        "2 of 6 images cannot be read:",
        "  'a/001.png': its content has changed since the dataset was loaded",
        "  'b/002.png': No such file or directory",
    ]
    assert [file.suffix for file in (cache / "pixels").iterdir()] == [".lock"]


def test_an_image_that_changed_since_loading_is_named(dataset: Dataset, cache: Path, make_folder, make_image) -> None:
    root = Path(dataset.images.root)
    make_image(root / "b" / "003.png", seed=99, size=(37, 51))
    with pytest.raises(UsageError, match=r"'b/003.png': its content has changed since the dataset was loaded"):
        open_pixel_store(dataset, GEOMETRY, cache)


def swapped_before_it_is_decoded(dataset: Dataset, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another image take the place of the file when its content has been read."""
    file = dataset.images.file(index)
    assert file is not None

    def load(content: bytes, name: str, *limit: float) -> Image.Image:
        if name == dataset.images.name(index):
            Image.new("RGB", (51, 37), "red").save(file)
        return load_rgb(content, name, *limit)

    monkeypatch.setattr("embedcore.images.sources.load_rgb", load)


def test_the_decoded_bytes_are_those_of_the_digest(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    right = plain_pixels(dataset)
    swapped_before_it_is_decoded(dataset, 5, monkeypatch)
    np.testing.assert_array_equal(PixelReader(dataset.images, dataset.digests, GEOMETRY).pixels(5), right[5])


def test_without_room_the_pixels_are_streamed(dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.warns(
        RuntimeWarning, match=r"no room for a pixel store of 34\.6 kB in .*pixels: images are decoded again"
    ):
        store = open_pixel_store(dataset, GEOMETRY, cache)
    assert isinstance(store, StreamedPixels) and len(store) == 9 and store.shape == (9, 32, 40, 3)
    np.testing.assert_array_equal(store.read(2, 99), plain_pixels(dataset)[2:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(0, 2), plain_pixels(dataset)[:2])


def test_a_disk_that_fills_up_while_writing_streams(dataset: Dataset, cache: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, hard))  # the store would have 34,688 bytes
    try:
        with pytest.warns(RuntimeWarning, match="no room"):
            store = open_pixel_store(dataset, GEOMETRY, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(store, StreamedPixels)
    assert [file.suffix for file in (cache / "pixels").iterdir()] == [".lock"]


def test_a_cache_that_is_a_file_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write the pixel store .*: Not a directory; choose another cache"):
        open_pixel_store(dataset, GEOMETRY, tmp_path / "file" / "cache")


def test_checksums_are_compared_once_in_a_process(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(dataset, cache)
    monkeypatch.setattr(pixel_store, "checksums_of", lambda *file: pytest.fail("read again"))
    opened(dataset, cache)
