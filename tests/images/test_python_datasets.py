"""Datasets from Python objects: paths, lists, DataFrames, torch's datasets, images in memory."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageDataset
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from embedcore.errors import UsageError
from embedcore.images.dataset import Dataset, as_dataset, load_dataset
from embedcore.images.geometry import Geometry
from embedcore.images.pixel_store import open_pixel_store
from embedcore.images.sources import as_image
from embedcore.images.timm_sets import pairs_images
from embedcore.retrieval.search import nearest

GEOMETRY = Geometry(16, 16, "bicubic", 1.0, "squash")


@pytest.fixture
def root(make_folder) -> Path:
    return make_folder({"cat": 3, "dog": 2})


@pytest.fixture
def paths(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))


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


def test_torchvisions_image_folder(root: Path) -> None:
    dataset = load_dataset(ImageFolder(root))
    assert dataset.classes == ("cat", "dog") and dataset.fingerprint == load_dataset(root).fingerprint
    assert dataset.names[4] == "ImageFolder#4"


def red(path: str) -> Image.Image:
    return Image.new("RGB", (20, 30), "red")


class Cropped(ImageFolder):
    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, target = super().__getitem__(index)
        return image.crop((0, 0, 20, 20)), 1 - target


@pytest.mark.parametrize(
    "change",
    [
        lambda root: ImageFolder(root, transform=Resize((20, 20))),
        lambda root: ImageFolder(root, target_transform=lambda target: 1 - target),
        lambda root: ImageFolder(root, transform=Resize((20, 20)), target_transform=lambda target: 1 - target),
        lambda root: ImageFolder(root, loader=red),
        Cropped,
        lambda root: Subset(Subset(ImageFolder(root, loader=red), [4, 3, 0, 1]), [3, 2, 1, 0]),
        lambda root: Subset(ImageFolder(root), [3, 0, 4, 1]),
        lambda root: ConcatDataset([ImageFolder(root), Cropped(root)]),
        lambda root: ImageDataset(str(root), transform=Resize((20, 20)), target_transform=lambda target: 1 - target),
        lambda root: ImageDataset(str(root), input_img_mode="L"),
        lambda root: ImageDataset(str(root)),
    ],
    ids=range(11),
)
def test_the_items_content_counts(root: Path, change) -> None:
    pairs = change(root)
    dataset = load_dataset(pairs)
    targets = [pair[1] for pair in (pairs[index] for index in range(len(pairs)))]
    titles = {"cat": 0, "dog": 1}
    assert [titles.get(dataset.classes[label], dataset.classes[label]) for label in dataset.labels] in (
        targets,
        [str(target) for target in targets],
    )
    for index in range(len(pairs)):
        expected = np.asarray(pairs[index][0].convert("RGB"))
        np.testing.assert_array_equal(np.asarray(dataset.images.load(index)), expected)


def test_labels_of_known_datasets_are_read_without_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    known = [
        ImageFolder(root, transform=Resize((20, 20))),
        ImageDataset(str(root), transform=Resize((20, 20))),
        Subset(ImageFolder(root, transform=Resize((20, 20))), [0, 1, 3, 4]),
    ]
    for pairs in known:
        base = pairs.dataset if isinstance(pairs, Subset) else pairs
        get = type(base).__getitem__
        with monkeypatch.context() as patch:
            seen = functools.wraps(get)(lambda self, index, get=get: (asked.append(index), get(self, index))[1])
            for owner in type(base).__mro__:
                if "__getitem__" in vars(owner):
                    patch.setattr(owner, "__getitem__", seen)
                    break
            found = pairs_images(pairs, "x", "x", "x")
        assert set(found.class_names) == {"cat", "dog"}
        assert set(asked) <= {0, 1, 2, 3, 4} and len(asked) <= 8  # to see whether they are the same each time
        asked.clear()


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), OSError("x"), ZeroDivisionError(), Exception("x")])
def test_an_item_that_raises_is_named_and_can_be_left_out_where_its_label_is_known(root: Path, error) -> None:
    def broken(image: Image.Image) -> Image.Image:
        if image.getpixel((0, 0)) == first:
            raise error
        return image

    first = Image.open(root / "cat" / "001.png").getpixel((0, 0))
    pairs = ImageFolder(root, transform=broken)
    with pytest.raises(UsageError, match=r"1 of 5 images .* cannot be read:\n  'ImageFolder#1'"):
        load_dataset(pairs)
    assert load_dataset(pairs, bad_images="skip").names == tuple(f"ImageFolder#{index}" for index in (0, 2, 3, 4))
    with pytest.raises(UsageError, match=r"^ConcatDataset#1 cannot be loaded: ") as caught:
        load_dataset(ConcatDataset([pairs]))
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


def test_normalised_images_are_never_left_out_as_bad(root: Path) -> None:
    pairs = ImageFolder(root, transform=Compose([ToTensor(), Normalize([0.1] * 3, [0.5] * 3)]))
    for bad_images in ("fail", "skip"):
        with pytest.raises(UsageError, match=r"^ImageFolder#0: levels of float32 from .*before they are normalised\)$"):
            load_dataset(pairs, bad_images=bad_images)


def test_a_dataset_that_only_iterates(tmp_path: Path) -> None:
    class Stream(IterableDataset):
        def __init__(self, targets: list[object]) -> None:
            self.targets = targets

        def __len__(self) -> int:
            return len(self.targets)

        def __iter__(self):
            return ((Image.new("RGB", (8, 6), (index, 0, 0)), target) for index, target in enumerate(self.targets))

    dataset = load_dataset(Stream([torch.tensor(3), 3, 4]))
    assert dataset.classes == ("3", "4") and dataset.images.load(2).getpixel((0, 0)) == (2, 0, 0)
    with pytest.raises(UsageError, match=r"^Stream#1: the label is missing"):
        load_dataset(Stream([3, None, 4]))


def test_titles_of_classes_only_where_all_targets_have_one(root: Path) -> None:
    class Shifted(ImageFolder):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            image, target = super().__getitem__(index)
            return image, target + 1

    assert load_dataset(Shifted(root)).classes == ("1", "2")
    assert load_dataset(Subset(ImageFolder(root), [4, 0, 3])).classes == ("cat", "dog")


def test_a_torch_dataset_of_images(root: Path, tmp_path: Path) -> None:
    expected = pixels(load_dataset(root), tmp_path / "cache")
    for transform in (None, ToTensor(), np.asarray):
        dataset = load_dataset(Subset(ImageFolder(root, transform=transform), [0, 1, 3, 4]))
        assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 1, 1]
        np.testing.assert_array_equal(pixels(dataset, tmp_path / "cache"), expected[[0, 1, 3, 4]])
    levels = torch.randint(0, 256, (4, 3, 20, 30), dtype=torch.uint8)
    dataset = load_dataset(TensorDataset(levels, torch.tensor([5, 5, 6, 6])))
    assert dataset.classes == ("5", "6")
    np.testing.assert_array_equal(np.asarray(dataset.images.load(2)), levels[2].permute(1, 2, 0))


def test_a_dataset_without_pairs_is_refused() -> None:
    with pytest.raises(UsageError, match="TensorDataset returns tuple, not pairs of an image and its class"):
        load_dataset(TensorDataset(torch.zeros(3, 3, 8, 8)))
    with pytest.raises(UsageError, match="a int without labels is not a dataset"):
        load_dataset(7)
    with pytest.raises(UsageError, match=r"^TensorDataset#0: levels of float32 from .* are neither uint8 nor"):
        load_dataset(TensorDataset(torch.randn(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])))


def test_a_dataset_of_hugging_face_on_disk(root: Path, paths: list[Path], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    expected = load_dataset(root)
    folder = datasets.load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "hub"))
    found = load_dataset(folder)
    assert found.classes == ("cat", "dog") and sorted(found.digests) == sorted(expected.digests)
    assert found.name == "imagefolder" and found.names[0] == "imagefolder#0" and found.images.portable
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(np.asarray(again.images.load(3)), np.asarray(found.images.load(3)))
    many = datasets.concatenate_datasets([folder] * 60)  # enough for worker processes
    shown = pixels(load_dataset(many), tmp_path / "cache")
    np.testing.assert_array_equal(shown[:5], pixels(found, tmp_path / "cache"))
    np.testing.assert_array_equal(shown[-5:], shown[:5])


def test_a_formatted_dataset_of_hugging_face(root: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    plain = datasets.load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "hub"))
    small = plain.with_transform(lambda batch: {**batch, "image": [image.resize((9, 9)) for image in batch["image"]]})
    found = load_dataset(small)
    assert found.classes == ("cat", "dog") and found.images.load(0).size == (9, 9)
    noisy = plain.with_transform(lambda batch: {"image": [np.random.rand(4, 4, 3) for _ in batch["image"]]})
    with pytest.raises(UsageError, match="imagefolder#0 is a different image each time it is loaded"):
        load_dataset(noisy)
    with pytest.raises(UsageError, match="split 'a:b' names two values of a column 'split', and the Dataset has no"):
        load_dataset(plain, split="a:b")
    with pytest.raises(UsageError, match="the Dataset names no images: it has no rows"):
        load_dataset(plain.select([]))
    missing = datasets.Dataset.from_dict(
        {"image": [None, str(root / "cat" / "000.png"), str(root / "cat" / "001.png"), str(root / "dog" / "000.png")]}
    ).cast_column("image", datasets.Image())
    with pytest.raises(UsageError, match=r"1 of 4 images .* cannot be read:\n  'Dataset#0'"):
        load_dataset(missing.add_column("label", [0, 0, 0, 1]))


def test_items_that_are_dicts() -> None:
    class Dicts:
        def __init__(self, **more: object) -> None:
            self.more = more
            self.class_to_idx = {"cat": 0, "dog": 1}

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> dict[str, object]:
            return {"picture": Image.new("RGB", (8, 6), (40 * index, 0, 0)), "Label": index % 2, **self.more}

    with pytest.raises(UsageError, match=r"^items of the Dicts: no key 'image'; they need .*-columns path=NAME"):
        load_dataset(Dicts())
    dataset = load_dataset(Dicts(), columns={"image": "picture"})
    assert dataset.classes == ("cat", "dog") and dataset.images.load(2).getpixel((0, 0)) == (80, 0, 0)
    with pytest.raises(UsageError, match="'file' or 'img' may be the image: choose a key"):
        load_dataset(Dicts(file=1, img=2))
    with pytest.raises(
        UsageError, match="columns name the keys of items that are dicts, and those of the TensorDataset"
    ):
        load_dataset(TensorDataset(torch.zeros(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])), columns="path=x")


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
