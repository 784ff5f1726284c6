from __future__ import annotations

import pickle

import numpy as np
import pytest

from embedcore.images import pixel_store
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import SelectedPixels, StoredPixels, open_pixel_store

GEOMETRY = Geometry(32, 40, "bicubic", 0.9, "center")


@pytest.fixture
def dataset(make_folder):
    return load_dataset(str(make_folder({"a": 3, "b": 2, "c": 4, "d": 1})))


def test_selected_classes_are_a_dataset_of_their_own(dataset):
    part = dataset.select_classes([2, 0])
    assert part.classes == ("a", "c") and part.titles == ("a", "c")
    assert part.labels.tolist() == [0] * 3 + [1] * 4 and part.leave_one_out
    assert part.names == tuple(name for name in dataset.names if name[0] in "ac")
    assert part.fingerprint != dataset.fingerprint and len(part) == 7
    whole, rows = part.part_of
    assert whole is dataset and [dataset.digests[row] for row in rows] == list(part.digests)


def test_sides_stay_apart(make_folder):
    root = make_folder({"query/a": 1, "query/b": 2, "reference/a": 2, "reference/b": 1})
    part = load_dataset(str(root)).select_classes([1])
    assert (part.is_query.sum(), part.is_reference.sum()) == (2, 1)
    assert {name.split("/")[1] for name in part.names} == {"b"}


def test_pixels_come_from_the_store_of_the_whole_if_it_exists(dataset, tmp_path, monkeypatch):
    part = dataset.select_classes([1, 2])
    own = open_pixel_store(part, GEOMETRY, tmp_path / "own")
    assert isinstance(own, StoredPixels) and len(own) == 6
    whole = open_pixel_store(dataset, GEOMETRY, tmp_path / "shared")
    monkeypatch.setattr(pixel_store, "_make", lambda *_: pytest.fail("decoded again"))
    selected = open_pixel_store(part, GEOMETRY, tmp_path / "shared")
    assert isinstance(selected, SelectedPixels) and selected.shape == own.shape
    assert np.array_equal(selected.read(1, 5), own.read(1, 5)) and selected.read(4, 99).shape[0] == 2
    assert np.array_equal(pickle.loads(pickle.dumps(selected)).read(0, 6), own.read(0, 6))
    assert np.array_equal(selected.read(0, 6), whole.read(3, 9))
    again = SelectedPixels(selected, np.array([4, 0]))
    assert again.shape[0] == 2 and np.array_equal(again.read(0, 2), whole.pixels[[7, 3]])


def test_a_damaged_store_of_the_whole_is_not_used(dataset, tmp_path):
    part = dataset.select_classes([1, 2])
    path = open_pixel_store(dataset, GEOMETRY, tmp_path).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert isinstance(open_pixel_store(part, GEOMETRY, tmp_path), StoredPixels)
