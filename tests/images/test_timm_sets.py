from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.dataset import ImageDataset, IterableImageDataset
from torchvision.datasets import MNIST

from embedcore.errors import UsageError
from embedcore.images.decode import BadImageError
from embedcore.images.sources import ImageSource
from embedcore.images.timm_sets import pairs_images, parse_timm_spec, timm_images


def test_spec() -> None:
    assert parse_timm_spec("hfds/user/name") == ("hfds/user/name", {})
    with pytest.raises(UsageError, match="'folder=/x' is not one of its options root=…, split=…, download=…"):
        parse_timm_spec("torch/mnist,folder=/x")


def test_torchs_image_folder(make_folder, make_image) -> None:
    root = make_folder({"val/cat": 2, "val/dog": 1, "train/cat": 1})
    found = timm_images(f"torch/image_folder,root={root}")
    assert list(found.class_names) == ["cat", "cat", "dog"] and found.roles is None
    assert found.source.load(2).size == (32, 24)
    assert len({found.source.digest(index) for index in range(3)}) == 3
    assert len(timm_images(f"torch/image_folder,root={root},split=train").class_names) == 1
    assert pickle.loads(pickle.dumps(found.source)).digest(1) == found.source.digest(1)
    assert_loaded_by_digest(found.source)


def assert_loaded_by_digest(source: ImageSource) -> None:
    """Images 0 and 1, which differ, are loaded if their content has the expected digest, and not otherwise."""
    assert source.load(0, source.digest(0)).tobytes() == source.load(0).tobytes()
    with pytest.raises(BadImageError, match="has changed since the dataset was loaded"):
        source.load(0, source.digest(1))


def write_mnist(root: Path, images: np.ndarray, labels: list[int]) -> None:
    """The files of MNIST's test half, as its web page lays them out (big-endian idx)."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, np.array(labels, np.uint8))):
        content = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()
        for half in ("t10k", "train"):
            (folder / f"{half}-{name}-ubyte").write_bytes(content)
            (folder / f"{half}-{name}-ubyte.gz").write_bytes(gzip.compress(content))


def test_a_torchvision_dataset(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    write_mnist(tmp_path, digits, [7, 7, 1, 1])
    found = timm_images(f"torch/mnist,root={tmp_path}")
    assert list(found.class_names) == ["7 - seven", "7 - seven", "1 - one", "1 - one"]
    loaded = found.source.load(3)
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded)[..., 1], digits[3])
    assert len({found.source.digest(index) for index in range(4)}) == 4
    assert found.source.name(3) == "torch/mnist#3"
    assert_loaded_by_digest(found.source)


def test_transforms_of_a_torchvision_dataset_count(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    write_mnist(tmp_path, digits, [7, 7, 1, 1])
    for options, names, expected in (
        ({}, ["7 - seven", "7 - seven", "1 - one", "1 - one"], digits),
        ({"target_transform": lambda target: target % 7}, ["0", "0", "1", "1"], digits),
        ({"target_transform": lambda target: f"is {target}"}, ["is 7", "is 7", "is 1", "is 1"], digits),
        (
            {"transform": lambda image: 255 - np.asarray(image)},
            ["7 - seven", "7 - seven", "1 - one", "1 - one"],
            255 - digits,
        ),
    ):
        found = pairs_images(MNIST(tmp_path, train=False, **options), "MNIST", "MNIST", "MNIST")
        assert list(found.class_names) == names
        for index in range(4):
            np.testing.assert_array_equal(np.asarray(found.source.load(index))[..., 0], expected[index])
    relabelled = MNIST(tmp_path, train=False)
    relabelled.targets = torch.tensor([3, 3, 3, 2])
    assert list(pairs_images(relabelled, "x", "x", "x").class_names) == ["3 - three"] * 3 + ["2 - two"]


class Archive(list):
    """A reader like timm's: a list of encoded files and targets, without a list of samples."""

    samples = (("not a file", "folder", None),) * 3  # as timm's reader of tar files has them

    def __getitem__(self, index: int) -> tuple[io.BytesIO, object]:
        content, target = super().__getitem__(index)
        return io.BytesIO(content), target


def png_of(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (5, 4), level).save(buffer, "PNG")
    return buffer.getvalue()


def test_readers_of_timm(tmp_path: Path) -> None:
    files = [png_of(level) for level in (10, 20, 30)]
    found = pairs_images(ImageDataset("", reader=Archive(zip(files, [4, 5, 4], strict=True))), "x", "x", "x")
    assert list(found.class_names) == ["4", "5", "4"]
    assert [found.source.content(index) for index in range(3)] == files
    inverted = ImageDataset(
        "", reader=Archive(zip(files, [4, 5, 4], strict=True)), transform=lambda image: 255 - np.asarray(image)
    )
    assert pairs_images(inverted, "x", "x", "x").source.load(1).getpixel((0, 0)) == (235,) * 3
    for target, message in (
        (None, "x#1: the label is missing"),
        (-1, "x#1: the label -1 is negative"),
        ([0, 1], "list"),
    ):
        with pytest.raises(UsageError, match=message):
            pairs_images(ImageDataset("", reader=Archive(zip(files, [4, target, 4], strict=True))), "x", "x", "x")


def test_iterable_datasets_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader(list):
        class_to_idx: ClassVar[dict[str, int]] = {"cat": 0, "dog": 1}

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pictures = [Image.new("L", (5, 4), level) for level in (10, 20, 30)]
    found = pairs_images(IterableImageDataset("", reader=Reader(zip(pictures, [0, 1, 0], strict=True))), "x", "x", "x")
    assert list(found.class_names) == ["cat", "dog", "cat"]
    assert [found.source.load(index).getpixel((0, 0))[0] for index in range(3)] == [10, 20, 30]
    del found
    for pairs, message in (
        ([(pictures[0], 0), (pictures[1], -1)], "x#1: the label -1 is negative"),
        ([(pictures[0], 0), ("a.png", 1)], "x#1 cannot be loaded: TypeError: a str is not a PIL image"),
    ):
        with pytest.raises(UsageError, match=message):
            pairs_images(IterableImageDataset("", reader=Reader(pairs)), "x", "x", "x")
    assert list(tmp_path.iterdir()) == []


def test_missing_data_is_reported_in_one_line(tmp_path: Path) -> None:
    for spec, message in (
        (f"torch/cifar10,root={tmp_path}", r"cannot open dataset torch/cifar10 .*root=.*download=true"),
        ("torch/cifar10", r"no root given.*torch/cifar10,root=FOLDER"),
        ("torch/nothing_of_the_kind", r"Unknown torchvision dataset"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            timm_images(spec)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("scheme", "module"), [("hfds", "datasets"), ("tfds", "tensorflow_datasets")])
def test_a_missing_package_is_named(scheme: str, module: str) -> None:
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(UsageError, match="pip install"):
            timm_images(f"{scheme}/x")
    else:
        pytest.skip(f"{module} is installed")


def test_a_hugging_face_dataset_on_disk(make_folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = make_folder({"cat": 2, "dog": 3})
    found = timm_images(f"hfds/{root},split=train,root={tmp_path / 'cache'}")
    assert sorted(found.class_names) == ["cat"] * 2 + ["dog"] * 3
    assert found.source.load(4).size == (32, 24)
    assert len({found.source.digest(index) for index in range(5)}) == 5
    assert pickle.loads(pickle.dumps(found.source)).digest(1) == found.source.digest(1)


def test_a_webdataset_is_read_once_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    picture = np.random.default_rng(3).integers(0, 256, (3, 10, 12, 3), np.uint8)
    with tarfile.open(tmp_path / "shop-val-0.tar", "w") as shard:
        for number in range(3):
            encoded = io.BytesIO()
            Image.fromarray(picture[number]).save(encoded, "PNG")
            for suffix, content in (("png", encoded.getvalue()), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    (tmp_path / "info.json").write_text(json.dumps({"splits": {}}))
    found = timm_images(f"wds/shop,root={tmp_path},split=shop-val-0.tar|3")
    assert list(found.class_names) == ["0", "1", "0"]
    for number in range(3):
        np.testing.assert_array_equal(np.asarray(found.source.load(number)), picture[number])
    again = pickle.loads(pickle.dumps(found.source))
    assert again.digest(2) == found.source.digest(2) != found.source.digest(1)
    file = found.source.spool.path
    assert file.exists()
    del found
    assert not file.exists()


def test_front_to_end_sources_without_any_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Image.new("L", (3, 2), 10 * number) for number in range(4)]

    class FrontToEnd:
        def __init__(self, listed: int) -> None:
            self.listed = listed

        def __len__(self) -> int:
            return self.listed

        def __iter__(self):
            return iter([(picture, np.int64(number % 2)) for number, picture in enumerate(pictures)])

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("embedcore.zoo.datasets.open_timm_dataset", lambda name, **kwargs: FrontToEnd(4))
    found = timm_images("tfds/x")
    assert list(found.class_names) == ["0", "1", "0", "1"]
    assert [found.source.load(index).getpixel((0, 0)) for index in range(4)] == [(10 * n,) * 3 for n in range(4)]
    assert_loaded_by_digest(found.source)
    monkeypatch.setattr("embedcore.zoo.datasets.open_timm_dataset", lambda name, **kwargs: FrontToEnd(5))
    with pytest.raises(UsageError, match="returned 4 of its 5 images"):
        timm_images("tfds/x")
    del found
    assert list(tmp_path.iterdir()) == []
