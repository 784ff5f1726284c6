from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., Path]
MakeFolder = Callable[..., Path]


def noise(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth random colours, uint8 [height, width, channels]: resizing filters and JPEG both have something to do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))[:height, :width]


@pytest.fixture
def make_image() -> MakeImage:
    """make_image(path, seed=0, size=(height, width)) writes an RGB image file and gives its path."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(seed, *size)).save(path)
        return path

    return make


@pytest.fixture
def make_folder(tmp_path: Path, make_image: MakeImage) -> MakeFolder:
    """make_folder({"cat": 3, "dog": 2}) writes that many images into each class folder and gives the root."""

    def make(classes: dict[str, int], *, root: str = "photos", size: tuple[int, int] = (24, 32)) -> Path:
        for position, (name, count) in enumerate(classes.items()):
            for image in range(count):
                make_image(tmp_path / root / name / f"{image:03}.png", seed=1000 * position + image, size=size)
        return tmp_path / root

    return make
