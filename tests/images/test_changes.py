"""Image files changed after the dataset was loaded are refused when decoded, never measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store


@pytest.fixture
def dataset(make_folder) -> Dataset:
    return load_dataset(str(make_folder({"a": 3, "b": 3})))


def file_of(dataset: Dataset, index: int) -> Path:
    file = dataset.images.file(index)
    assert file is not None
    return file


def test_a_name_cannot_control_the_terminal(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b\x1b[2J": 2})
    dataset = load_dataset(str(root))
    (root / "b\x1b[2J" / "000.png").unlink()
    with pytest.raises(UsageError) as caught:
        open_pixel_store(dataset, Geometry(8, 8, "bicubic", 0.9, "center"), tmp_path / "cache")
    assert str(caught.value).endswith(r"'b\x1b[2J/000.png': No such file or directory")


def test_a_store_holds_the_pixels_of_a_dataset_whose_files_have_changed(dataset: Dataset, tmp_path: Path) -> None:
    small, large = (Geometry(edge, edge, "bicubic", 0.9, "center") for edge in (8, 12))
    pixels = open_pixel_store(dataset, small, tmp_path / "cache").read(0, 6).copy()
    file_of(dataset, 1).write_bytes(file_of(dataset, 2).read_bytes())
    assert (open_pixel_store(dataset, small, tmp_path / "cache").read(0, 6) == pixels).all()
    with pytest.raises(UsageError, match=r"'a/001\.png': its content has changed since the dataset was loaded"):
        open_pixel_store(dataset, large, tmp_path / "cache")


def test_a_changed_dataset_has_another_store(dataset: Dataset, make_image, tmp_path: Path) -> None:
    geometry = Geometry(8, 8, "bicubic", 0.9, "center")
    old = open_pixel_store(dataset, geometry, tmp_path / "cache")
    make_image(file_of(dataset, 1), seed=99)
    changed = load_dataset(str(Path(dataset.images.root)), cache_dir=tmp_path / "cache")
    new = open_pixel_store(changed, geometry, tmp_path / "cache")
    assert old.path != new.path and changed.fingerprint != dataset.fingerprint
    differing = [index for index in range(6) if (old.read(index, index + 1) != new.read(index, index + 1)).any()]
    assert differing == [1]
