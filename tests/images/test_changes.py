from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from embedcore.errors import UsageError
from embedcore.images import audit, pixel_store
from embedcore.images.dataset import Dataset, load_dataset
from embedcore.images.geometry import Geometry
from embedcore.images.pixel_store import open_pixel_store
from embedcore.images.sources import FileSource


@pytest.fixture
def dataset(make_folder) -> Dataset:
    return load_dataset(str(make_folder({"a": 3, "b": 3})))


def file_of(dataset: Dataset, index: int) -> Path:
    file = dataset.images.file(index)
    assert file is not None
    return file


def test_nothing_has_changed(dataset: Dataset) -> None:
    assert dataset.changed() is None


def test_the_first_changed_image_is_named(dataset: Dataset, make_image) -> None:
    make_image(file_of(dataset, 4), seed=98)
    make_image(file_of(dataset, 1), seed=99)
    assert dataset.changed() == "image 'a/001.png' has changed since the dataset was loaded"


def test_a_change_of_one_byte_behind_an_old_time(dataset: Dataset) -> None:
    file = file_of(dataset, 2)
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert dataset.changed() == "image 'a/002.png' has changed since the dataset was loaded"


def test_a_file_that_is_gone_or_no_file_any_more(dataset: Dataset) -> None:
    file = file_of(dataset, 5)
    file.unlink()
    assert dataset.changed() == "image 'b/002.png' can no longer be read: No such file or directory"
    os.mkfifo(file)
    assert dataset.changed() == "image 'b/002.png' can no longer be read: not a regular file"


def test_the_same_content_anew_is_no_change_and_read_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    digest = FileSource.digest
    monkeypatch.setattr(FileSource, "digest", lambda self, index: (read.append(index), digest(self, index))[1])
    file = file_of(dataset, 3)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    file_of(dataset, 0).chmod(0o600)
    assert dataset.changed() is None and sorted(read) == [0, 3]
    assert dataset.changed() is None and len(read) == 2


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each file that is looked at, once for each look."""
    seen: list[Path] = []
    stamp_of = audit.stamp_of
    monkeypatch.setattr(audit, "stamp_of", lambda file: (seen.append(file), stamp_of(file))[1])
    return seen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``clock.now`` is the time in seconds."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_files_are_looked_at_once_a_minute(dataset: Dataset, stats: list[Path], clock: SimpleNamespace) -> None:
    for case in range(1800):  # cases of a tenth of a second
        clock.now = 1000.0 + case / 10
        assert dataset.changed() is None
    assert len(stats) == 3 * len(dataset)


def test_a_change_is_noticed_within_a_minute(dataset: Dataset, stats: list[Path], clock: SimpleNamespace) -> None:
    assert dataset.changed() is None
    file_of(dataset, 1).unlink()
    clock.now += 59.9
    assert dataset.changed() is None and len(stats) == 6
    clock.now += 0.1
    for _ in range(2):  # and not forgotten within the next minute
        assert "'a/001.png' can no longer be read" in str(dataset.changed())


def test_a_look_can_be_forced(dataset: Dataset, stats: list[Path], clock: SimpleNamespace) -> None:
    assert dataset.changed() is None
    file_of(dataset, 1).unlink()
    assert "'a/001.png' can no longer be read" in str(dataset.changed(now=True))


def test_no_store_is_made_of_what_has_changed_since_a_look(
    dataset: Dataset, clock: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dataset.changed() is None
    whole = pixel_store.checksums_of

    def replace(pixels: np.ndarray) -> list[int]:
        file_of(dataset, 4).unlink()  # when all images have been decoded
        return whole(pixels)

    monkeypatch.setattr(pixel_store, "checksums_of", replace)
    with pytest.raises(UsageError, match=r"'b/001\.png' can no longer be read.*: start again"):
        open_pixel_store(dataset, Geometry(8, 8, "bicubic", 0.9, "center"), tmp_path / "cache")


def test_a_name_cannot_act_on_the_terminal(make_folder, make_image) -> None:
    root = make_folder({"a": 2, "b\x1b[2J": 2})
    dataset = load_dataset(str(root))
    (root / "b\x1b[2J" / "000.png").unlink()
    assert dataset.changed() == r"image 'b\x1b[2J/000.png' can no longer be read: No such file or directory"


def test_a_subset_watches_its_own_images(make_folder) -> None:
    root = make_folder({"a": 9, "b": 9})
    dataset = load_dataset(str(root), max_per_class=2)
    kept = {dataset.images.name(index) for index in range(len(dataset))}
    for file in root.rglob("*.png"):
        if file.relative_to(root).as_posix() not in kept:
            file.unlink()
    assert dataset.changed() is None
    file_of(dataset, 3).unlink()
    assert dataset.images.name(3) in str(dataset.changed(now=True))


def test_another_process_does_not_watch(dataset: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    file_of(dataset, 0).unlink()
    assert copy.changed() is None and dataset.changed() is not None
    assert copy.fingerprint == dataset.fingerprint


def test_what_is_no_file_is_not_watched(tmp_path: Path, make_folder) -> None:
    root = make_folder({"val/a": 2, "val/b": 2})
    dataset = load_dataset(f"torch/image_folder,root={root}")
    assert dataset.images.file(0) is None and dataset.changed() is None


def test_a_changed_dataset_has_another_store(dataset: Dataset, make_image, tmp_path: Path) -> None:
    geometry = Geometry(8, 8, "bicubic", 0.9, "center")
    old = open_pixel_store(dataset, geometry, tmp_path / "cache")
    make_image(file_of(dataset, 1), seed=99)
    changed = load_dataset(str(Path(dataset.images.root)), cache_dir=tmp_path / "cache")
    new = open_pixel_store(changed, geometry, tmp_path / "cache")
    assert old.path != new.path and changed.fingerprint != dataset.fingerprint
    differing = [index for index in range(6) if (old.read(index, index + 1) != new.read(index, index + 1)).any()]
    assert differing == [1]
