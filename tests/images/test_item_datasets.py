"""Datasets of items (image, class), as those of torch, torchvision and Hugging Face."""

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
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.images.timm_sets import pairs_images

GEOMETRY = Geometry(16, 16, "bicubic", 1.0, "squash")


def pixels(dataset: Dataset, cache: Path) -> np.ndarray:
    return open_pixel_store(dataset, GEOMETRY, cache).read(0, len(dataset)).copy()


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
    with pytest.raises(UsageError, match="columns name keys of dicts, but items of the TensorDataset are not dicts"):
        load_dataset(TensorDataset(torch.zeros(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])), columns="path=x")
