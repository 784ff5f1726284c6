"""Rows of docs/datasets.md: datasets of torch, torchvision and timm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dataset_kinds import CATS_AND_DOGS, NEGATIVE, PHOTOS, SEVERAL, Arguments, Kind, photos
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

SMALLER = transforms.Resize((5, 7))
LABELS = [0, 0, 1, 1, 1]


class Pairs:
    """A user's own dataset: item i is an image and the target i."""

    def __init__(self, targets: Any, image: Callable[[int], Any] | None = None) -> None:
        self.pairs = list(targets)
        self.image = image or (lambda index: Image.new("RGB", (8, 6), (40 * index, 90, 10)))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.image(index), self.pairs[index]


class Dicts(Pairs):
    """The same as dicts, with further keys."""

    def __init__(self, targets: Any, **more: Any) -> None:
        super().__init__(targets)
        self.more = more

    def __getitem__(self, index: int) -> Any:
        return {"image": self.image(index), "label": self.pairs[index], **self.more}


class Relabelled(Pairs):
    """Its attributes `targets` and `samples` differ from its items."""

    targets = (0, 1, 0, 1, 0)
    samples = tuple((name, 0) for name in PHOTOS)


def folder_with(**options: Any) -> Callable[[Path], Arguments]:
    """torchvision's ImageFolder of five photos."""

    def make(folder: Path) -> Arguments:
        photos(folder)
        return Arguments(ImageFolder(folder, **options))

    return make


def pairs_with(*targets: Any, image: Callable[[int], Any] | None = None) -> Callable[[Path], Arguments]:
    return lambda folder: Arguments(Pairs(targets or LABELS, image))


def sideways(folder: Path) -> Arguments:
    """Photos with an EXIF orientation, and a part of them."""
    photos(folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in PHOTOS:
        Image.open(folder / name).save(folder / name, exif=exif)
    return Arguments(Subset(ImageFolder(folder), [4, 3, 0, 1]))


def upright(dataset: Any) -> None:
    assert {dataset.images.load(index).size for index in range(len(dataset))} == {(6, 8)}


def grey(dataset: Any) -> None:
    for index in range(len(dataset)):
        pixels = np.asarray(dataset.images.load(index))
        assert pixels.shape == (5, 7, 3) and (pixels[..., 0] == pixels[..., 2]).all()


def tensors(folder: Path) -> Arguments:
    levels = torch.randint(0, 256, (5, 3, 6, 8), dtype=torch.uint8)
    return Arguments(TensorDataset(levels, torch.tensor(LABELS)))


def timms(folder: Path) -> Arguments:
    from timm.data import ImageDataset

    photos(folder)
    return Arguments(ImageDataset(str(folder), transform=SMALLER, target_transform=lambda target: 9 - target))


def small(dataset: Any) -> None:
    assert dataset.images.load(0).size == (7, 5)


def raising(index: int) -> Any:
    if index == 2:
        raise RuntimeError("the archive has no such member")
    return Image.new("RGB", (8, 6))


def normalised(index: int) -> Any:
    return transforms.Normalize([0.5] * 3, [0.25] * 3)(torch.linspace(0, 1, 144).reshape(3, 6, 8) * (1 - index / 8))


TORCH = [
    Kind(
        "torchvision's `ImageFolder` without a transform",
        folder_with(),
        "its files are read as in a folder, classes have its names",
        CATS_AND_DOGS,
    ),
    Kind(
        "a `Subset` (`random_split`) of it",
        sideways,
        "the same: turned upright by EXIF, though `dataset[i]` is not",
        {"cat": 2, "dog": 2},
        check=upright,
    ),
    Kind(
        "`target_transform`",
        folder_with(target_transform=lambda target: ("pet", "guard")[target]),
        "what `dataset[i]` returns is the class",
        {"pet": 2, "guard": 3},
    ),
    Kind(
        "`transform` that returns PIL images, uint8 arrays, or floats from 0 to 1 (`ToTensor`)",
        folder_with(transform=transforms.Compose([transforms.Grayscale(), SMALLER, transforms.ToTensor()])),
        "what `dataset[i]` returns is the image",
        CATS_AND_DOGS,
        check=grey,
    ),
    Kind(
        "a random transform, such as training augmentation",
        folder_with(transform=transforms.RandomResizedCrop(4)),
        refused="ImageFolder#0 is a different image each time it is loaded: remove random transforms",
    ),
    Kind(
        "normalised images",
        pairs_with(image=normalised),
        refused="Pairs#0: levels of float32 from -2 to 2 are neither uint8 nor floats from 0 to 1 "
        "(give images before they are normalised)",
    ),
    Kind(
        "floats from 0 to 255",
        pairs_with(image=lambda index: np.linspace(0, 255, 144, dtype=np.float32).reshape(6, 8, 3)),
        refused="Pairs#0: levels of float32 from 0 to 255 are neither uint8 nor floats from 0 to 1",
    ),
    Kind(
        "timm's `ImageDataset` with `transform` or `target_transform`",
        timms,
        "what `dataset[i]` returns",
        {"9": 2, "8": 3},
        check=small,
    ),
    Kind("tensors (`TensorDataset`)", tensors, "their values are the classes", {"0": 2, "1": 3}),
    Kind(
        "a dataset of your own, of any class with `__len__` and `__getitem__`",
        lambda folder: Arguments(Relabelled(LABELS)),
        "what `dataset[i]` returns, whatever its attributes `targets` and `samples` contain",
        {"0": 2, "1": 3},
    ),
    Kind(
        "concatenated datasets (`ConcatDataset`)",
        lambda folder: Arguments(ConcatDataset([Pairs(["a", "a", "b"]), Pairs(["b"])])),
        "what `dataset[i]` returns",
        {"a": 2, "b": 2},
    ),
    Kind(
        "targets with `None`, NaN or empty text",
        pairs_with(0, 0, None, 1, 1),
        refused="Pairs#2: the label is missing (None): leave the image out, or give it a class",
    ),
    Kind(
        "`-1` for unlabelled images (`STL10`, test splits of the hub)",
        pairs_with(0, 0, -1, 1, 1),
        refused=f"Pairs#2: {NEGATIVE}",
    ),
    Kind(
        "attributes (`CelebA`), one-hot rows",
        pairs_with(*torch.eye(5, dtype=torch.int64)),
        refused=f"Pairs#0: the label is a Tensor of shape [5]: {SEVERAL}",
    ),
    Kind(
        "boxes and captions (`CocoDetection`, `VOCDetection`): lists and dicts",
        pairs_with(*[[{"bbox": [0, 0, 3, 4], "category_id": 1}]] * 5),
        refused=f"Pairs#0: the label is a list: {SEVERAL}",
    ),
    Kind(
        "an item that raises",
        pairs_with(image=raising),
        refused="Pairs#2 cannot be loaded: RuntimeError: the archive has no such member",
    ),
    Kind(
        "items that are dicts with keys such as `image` and `label`",
        lambda folder: Arguments(Dicts(LABELS)),
        "as pairs of these; `columns` names other keys",
        {"0": 2, "1": 3},
    ),
    Kind(
        "items that are neither pairs nor dicts",
        lambda folder: Arguments(TensorDataset(torch.zeros(3, 3, 8, 8))),
        refused="TensorDataset returns tuple, not pairs of an image and its class",
    ),
]
