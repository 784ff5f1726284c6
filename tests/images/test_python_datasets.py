"""Datasets from Python objects: paths, lists, DataFrames, images in memory."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import as_dataset, load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.images.sources import as_image
from embedcore.retrieval.search import nearest

GEOMETRY = Geometry(16, 16, "bicubic", 1.0, "squash")


def labels_of(paths: list[Path]) -> list[str]:
    return [path.parent.name for path in paths]


def pixels(dataset: Dataset, cache: Path) -> np.ndarray:
    return open_pixel_store(dataset, GEOMETRY, cache).read(0, len(dataset)).copy()


def test_a_path_is_a_folder(root: Path) -> None:
    assert load_dataset(root).fingerprint == load_dataset(str(root)).fingerprint
    with pytest.raises(UsageError, match="no such folder"):
        load_dataset(Path("emoji"))


def test_paths_and_labels(root: Path, paths: list[Path]) -> None:
    expected = load_dataset(str(root)).fingerprint
    assert load_dataset(paths, labels_of(paths)).fingerprint == expected
    assert load_dataset([str(path) for path in paths], np.array(labels_of(paths))).fingerprint == expected
    numbered = load_dataset(tuple(paths), [0, 0, 0, 7, 7])
    assert numbered.classes == ("0", "7") and numbered.names == tuple(map(str, paths))


def test_lists_of_any_kind_are_read_by_position(root: Path, paths: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    expected = load_dataset(root).fingerprint
    for images in (tuple(paths), iter(paths), np.array(paths), pandas.Series(paths, index=[9, 3, 0, 1, 2])):
        assert load_dataset(images, labels_of(paths)).fingerprint == expected
    for labels in (iter(labels_of(paths)), pandas.Series(labels_of(paths), index=[4, 3, 2, 1, 0], dtype="category")):
        assert load_dataset(paths, labels).fingerprint == expected
    roles = ["query", "reference", "reference", "query", "reference"]
    listed = load_dataset(paths, labels_of(paths), roles=pandas.Series(roles, index=[4, 3, 2, 1, 0]))
    assert listed.query_names == (str(paths[0]), str(paths[3]))


def test_roles(paths: list[Path]) -> None:
    roles = ["query", "reference", "Gallery", "query", "reference"]
    dataset = load_dataset(paths, labels_of(paths), roles=roles)
    assert not dataset.leave_one_out and dataset.is_query.tolist() == [True, False, False, True, False]
    assert load_dataset(paths, labels_of(paths), roles=roles, split="loo").leave_one_out


def test_neighbours_have_names(root: Path, paths: list[Path]) -> None:
    roles = ["query", "reference", "reference", "query", "reference"]
    dataset = load_dataset(paths, labels_of(paths), roles=roles)
    assert dataset.query_names == (str(paths[0]), str(paths[3]))
    assert dataset.reference_names == (str(paths[1]), str(paths[2]), str(paths[4]))
    embeddings = np.eye(3, dtype=np.float32)[[0, 1, 0, 2, 2]]
    found = nearest(embeddings[dataset.is_query], embeddings[dataset.is_reference], k=1)
    assert [dataset.reference_names[index] for index in found.indices[:, 0]] == [str(paths[2]), str(paths[4])]
    alone = load_dataset(root)
    assert alone.names == alone.query_names == alone.reference_names
    assert alone.names[:1] == ("cat/000.png",) and len(alone.names) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a"]}, "5 images but 1 labels"),
        ({"roles": ["query"]}, "5 images but 1 roles"),
        (
            {"roles": ["query"] * 4 + ["both"]},
            r"image 4 of the list: role 'both' is not one of query, reference, gallery",
        ),
        ({"labels": None}, r"a list without labels is not a dataset: use load_dataset\(images, labels\)"),
        ({"labels": None, "roles": ["query"] * 5}, "labels and roles belong to a list of images"),
        ({"images": "emoji"}, "labels and roles belong to a list of images"),
        ({"images": "a list"}, "labels and roles belong to a list of images"),
        ({"images": dict.fromkeys("abcde")}, "images is a dict: a list with one entry for each image is needed"),
        ({"images": 5}, "images is a int: a list"),
        ({"labels": "abcde"}, "labels is a str: a list"),
        ({"labels": {"a": 1}}, "labels is a dict: a list"),
        ({"labels": 7}, "labels is a int: a list"),
        ({"labels": torch.tensor(7)}, "labels is a Tensor: a list"),
        ({"labels": np.array("a")}, "labels is a ndarray: a list"),
        ({"roles": "query"}, "roles is a str: a list"),
        ({"roles": [None] * 5}, "image 0 of the list: role 'None' is not one of query, reference, gallery"),
        ({"max_classes": "5"}, "max_classes is '5': it must be a whole number"),
        ({"max_per_class": 2.5}, "max_per_class is 2.5: it must be a whole number"),
        ({"split": None}, "unknown split None"),
        ({"split": "a:b"}, "split 'a:b' names .* and a list is neither a folder nor a table"),
        ({"images": [3] * 5}, "image 0 of the list cannot be used: TypeError: a int is not a PIL image, array or path"),
    ],
)
def test_invalid_lists_are_refused(paths: list[Path], change: dict[str, object], message: str) -> None:
    value = {"images": paths, "labels": labels_of(paths), **change}
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(**value)
    assert "\n" not in str(caught.value)


def test_missing_files_of_a_list_are_bad_images(paths: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"1 of 6 images of the list of images cannot be read:\n  'gone.png': No such"):
        load_dataset([*paths, "gone.png"], [*labels_of(paths), "dog"])
    dataset = load_dataset([*paths, "gone.png"], [*labels_of(paths), "dog"], bad_images="skip")
    assert len(dataset) == 5 and dataset.skipped[0][0] == "gone.png"


def test_a_data_frame(root: Path, paths: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": labels_of(paths), "path": paths, "note": 1.5})
    assert load_dataset(frame).fingerprint == load_dataset(root).fingerprint
    frame["role"] = ["query", "reference", "reference", "query", "reference"]
    assert load_dataset(frame).query_names == (str(paths[0]), str(paths[3]))
    assert load_dataset(frame[frame.label == "cat"].assign(label=[1, 1, 2])).classes == ("1", "2")
    frame.loc[2, "label"] = None
    with pytest.raises(UsageError, match="row 2 of the DataFrame: column 'label' is empty"):
        load_dataset(frame)
    with pytest.raises(UsageError, match=r"the DataFrame: no column 'path'.* path,label\[,role\].*'photo,label'"):
        load_dataset(pandas.DataFrame({"photo": ["a"], "label": ["b"]}))
    named = pandas.DataFrame({"photo": paths, "label": 0, "class": labels_of(paths), "target": 1})
    assert load_dataset(named, columns={"path": "photo", "label": "class"}).classes == ("cat", "dog")
    usual = named.rename(columns={"photo": "Image"})[["Image", "class"]]
    assert load_dataset(usual).fingerprint == load_dataset(root).fingerprint


def test_images_in_memory_and_labels(root: Path, paths: list[Path], tmp_path: Path) -> None:
    images = [Image.open(path) for path in paths]
    dataset = load_dataset(images, labels_of(paths))
    np.testing.assert_array_equal(pixels(dataset, tmp_path / "cache"), pixels(load_dataset(root), tmp_path / "cache"))
    assert dataset.names == ("#0", "#1", "#2", "#3", "#4")
    few = load_dataset(images, labels_of(paths), max_per_class=1, roles=["query", "reference"] * 2 + ["query"])
    assert set(few.names) < set(dataset.names)


def test_images_to_embed(root: Path, paths: list[Path], tmp_path: Path) -> None:
    expected = pixels(load_dataset(root), tmp_path / "cache")
    arrays = [np.asarray(Image.open(path)) for path in paths]
    for value in (
        root,
        str(root),
        paths,
        [str(path) for path in paths],
        (Image.open(path) for path in paths),
        arrays,
        np.stack(arrays),
    ):
        dataset = as_dataset(value)
        assert dataset.classes == (".",) and len(dataset) == 5 and as_dataset(dataset) is dataset
        np.testing.assert_array_equal(pixels(pickle.loads(pickle.dumps(dataset)), tmp_path / "cache"), expected)
        with pytest.raises(UsageError, match="has no classes: it can be embedded, but scores need labels"):
            dataset.expect_classes()
    assert as_dataset(root).names == ("cat/000.png", "cat/001.png", "cat/002.png", "dog/000.png", "dog/001.png")
    assert len(as_dataset(paths[:1])) == 1
    load_dataset(root).expect_classes()


def test_a_folder_without_classes(make_folder) -> None:
    flat = make_folder({".": 3})
    assert as_dataset(flat).names == ("000.png", "001.png", "002.png")
    with pytest.raises(UsageError, match="one folder per class"):
        load_dataset(flat)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no images to embed: the list is empty"),
        ({"a.png", "b.png"}, "images is a set: a list with one entry for each image is needed"),
        ({"a.png": 1}, "images is a dict: a list"),
        (b"photos", "images is a bytes: a list"),
        (7, "a int cannot be embedded: give a dataset, a folder, a DataFrame or a list of images"),
        (np.zeros((8, 8, 3), np.uint8), "a ndarray cannot be embedded"),
        (Image.new("RGB", (8, 8)), "a Image cannot be embedded"),
        (["gone.png"], r"1 of 1 images of the list of images cannot be read:\n  'gone.png': No such file"),
        ([np.zeros((8, 8, 3), np.int32)], "image 0 of the list cannot be used: ValueError: levels of int32"),
        ([np.zeros((8, 8, 9), np.uint8)], r"image 0 of the list cannot be used: .*shape \[8, 8, 9\] is not \[h, w"),
        (Path("/nowhere/at/all"), "no such folder: /nowhere/at/all"),
    ],
)
def test_other_inputs_cannot_be_embedded(value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        as_dataset(value)


def test_an_array_that_changes_is_noticed(tmp_path: Path) -> None:
    arrays = [np.full((8, 8, 3), level, np.uint8) for level in range(4)]
    dataset = as_dataset(arrays)
    arrays[2][0, 0] = 255
    with pytest.raises(UsageError, match="'#2': its content has changed since the dataset was loaded"):
        open_pixel_store(dataset, GEOMETRY, tmp_path)


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcore.images.pixel_store.write_blocks", lambda *args: pytest.fail("sent to workers"))


@pytest.mark.usefixtures("no_workers")
def test_many_images_in_memory_stay_in_this_process(tmp_path: Path) -> None:
    dataset = as_dataset([np.full((4, 4, 3), level % 256, np.uint8) for level in range(300)])
    assert pixels(dataset, tmp_path)[:, 0, 0, 0].tolist() == [level % 256 for level in range(300)]


@pytest.mark.usefixtures("no_workers")
def test_a_dataset_that_cannot_be_pickled_stays_in_this_process(tmp_path: Path) -> None:
    class Levels:
        def __len__(self) -> int:
            return 300

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (4, 4), (index % 256,) * 3), index % 2

    dataset = load_dataset(Levels())
    assert pixels(dataset, tmp_path)[:, 0, 0, 0].tolist() == [level % 256 for level in range(300)]
    dataset = load_dataset(Levels(), max_per_class=140)
    assert len(pixels(dataset, tmp_path)) == 280


def test_arrays_and_tensors_as_images() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    floats = torch.from_numpy(colours) / 255
    for value in (colours, torch.from_numpy(colours), np.moveaxis(colours, 2, 0), floats, floats.requires_grad_()):
        np.testing.assert_array_equal(np.asarray(as_image(value)), colours)
    assert np.asarray(as_image(torch.ones((4, 4, 3), dtype=torch.bfloat16))).min() == 255
    grey = colours[..., 0]
    for value in (grey, grey[..., None], grey[None]):
        image = as_image(value)
        assert image.mode == "L" and (np.asarray(image) == grey).all()
    assert as_image(np.zeros((5, 7, 4), np.uint8)).mode == "RGBA"
