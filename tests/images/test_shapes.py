"""Images that are too large or too elongated: refused before they take all memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from PIL import Image

from embedcore.cli import main
from embedcore.errors import UnsupportedModel, UsageError
from embedcore.images.decode import MOST_ELONGATED, BadImageError
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import as_dataset, load_dataset
from embedcore.images.workers import PixelReader
from embedcore.zoo.transforms import data_config

CENTER = Geometry(32, 32, "bicubic", 0.9, "center")
BORDER = Geometry(384, 384, "bicubic", 1.0, "border", (0, 0, 0))
LONG = [(1, 9999), (9999, 1), (1, 3000), (1, MOST_ELONGATED + 1), (2, 2 * MOST_ELONGATED + 1)]


def add(root: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(root / "a" / "long.png")


@pytest.fixture
def root(make_folder) -> Path:
    return make_folder({"a": 2, "b": 2})


@pytest.mark.parametrize("size", LONG)
def test_the_audit_refuses_images_that_would_take_all_memory(root: Path, size: tuple[int, int]) -> None:
    add(root, size)
    text = rf"'a/long.png': {size[0]} x {size[1]} pixels: too elongated \(more than 256 to 1\)"
    with pytest.raises(UsageError, match=text):
        load_dataset(str(root))
    assert len(load_dataset(str(root), bad_images="skip")) == 4


@pytest.mark.parametrize("size", LONG)
@pytest.mark.parametrize("geometry", [CENTER, BORDER], ids=["center", "border"])
def test_images_without_an_audit_are_refused_when_they_are_decoded(
    root: Path, size: tuple[int, int], geometry: Geometry
) -> None:
    add(root, size)
    dataset = as_dataset(root)
    with pytest.raises(BadImageError, match="too elongated"):
        PixelReader(dataset.images, dataset.digests, geometry).pixels(dataset.names.index("a/long.png"))


@pytest.mark.parametrize("size", [(1, MOST_ELONGATED), (2 * MOST_ELONGATED, 2)])
@pytest.mark.parametrize("geometry", [CENTER, BORDER], ids=["center", "border"])
def test_panoramas_are_read(root: Path, size: tuple[int, int], geometry: Geometry) -> None:
    add(root, size)
    dataset = load_dataset(str(root))
    place = dataset.names.index("a/long.png")
    pixels = PixelReader(dataset.images, dataset.digests, geometry).pixels(place)
    assert pixels[geometry.height // 2, geometry.width // 2].tolist() == [255, 0, 0]


def test_no_model_of_timm_scales_an_image_to_more_than_1_gib() -> None:
    largest = 0.0
    for tag in timm.list_models(pretrained=True):
        with contextlib.suppress(UnsupportedModel):
            config = data_config(tag)
            if config.crop_mode == "center":
                largest = max(largest, max(config.input_size[1:]) / config.crop_pct)
    assert 4 * largest**2 * MOST_ELONGATED <= 2**30


@pytest.fixture
def bomb(root: Path) -> Path:
    Image.new("L", (200, 100)).save(root / "a" / "large.png")
    return root


def test_the_limit_of_pixels_is_an_option(bomb: Path) -> None:
    with pytest.raises(UsageError, match=r"'a/large.png': more than 0.0199 megapixels: .*--embed-max-megapixels"):
        load_dataset(str(bomb), max_megapixels=0.0199)
    assert len(load_dataset(str(bomb), max_megapixels=0.02)) == 5
    for limit in (0, -1, float("nan")):
        with pytest.raises(UsageError, match=r"max_megapixels is .*: a number above 0"):
            load_dataset(str(bomb), max_megapixels=limit)


def test_the_limit_counts_for_images_that_are_known_too(bomb: Path, tmp_path: Path, settled: None, looked_at) -> None:
    load: Callable = lambda limit: load_dataset(  # noqa: E731
        str(bomb), max_megapixels=limit, bad_images="skip", cache_dir=tmp_path / "cache"
    )
    assert len(load(1)) == 5 and len(looked_at.decoded) == 5
    assert [name for name, _ in load(0.01).skipped] == ["a/large.png"]
    assert len(load(1)) == 5 and len(looked_at.decoded) == 5


def test_the_limit_goes_with_the_images_to_the_workers(bomb: Path) -> None:
    dataset = load_dataset(str(bomb), max_megapixels=0.02)
    assert dataset.images.max_megapixels == 0.02
    assert PixelReader(dataset.images, dataset.digests, CENTER).pixels(0).shape == (32, 32, 3)


def test_check_takes_the_limit(bomb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(bomb), "--cache", str(tmp_path / "cache")]
    assert main(arguments) == 0
    assert main([*arguments, "--max-megapixels", "0.01"]) == 1
    assert "'a/large.png'" in capsys.readouterr().out
