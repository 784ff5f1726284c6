from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.fft import dctn

from embedcore.images.duplicates import perceptual_hash


def scene(seed: int, edge: int = 200) -> Image.Image:
    """Ellipses on a gradient: structure of all sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(*rng.uniform(0, 255, 2), edge)
    image = Image.fromarray(np.repeat(np.tile(ramp, (edge, 1))[..., None], 3, axis=2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.uniform(0, edge, 2)
        width, height = rng.uniform(edge / 10, edge / 2, 2)
        draw.ellipse((x - width, y - height, x + width, y + height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def distance(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("seed", range(8))
def test_visually_equal_copies_are_near(seed: int) -> None:
    image = scene(seed)
    assert distance(image, image.copy()) == 0
    assert distance(image, jpeg(image, 60)) <= 4
    assert distance(image, image.resize((93, 93), Image.Resampling.BICUBIC)) <= 4
    assert distance(image, Image.fromarray((np.asarray(image) * 0.9 + 12).astype(np.uint8))) <= 4


def test_different_images_are_far() -> None:
    hashes = [perceptual_hash(scene(seed)) for seed in range(40)]
    distances = [(a ^ b).bit_count() for position, a in enumerate(hashes) for b in hashes[:position]]
    assert min(distances) > 8
    assert np.mean(distances) == pytest.approx(32, abs=3)


def test_bits_are_those_of_scipys_cosine_transform() -> None:
    levels = np.random.default_rng(5).integers(0, 256, (32, 32), np.uint8)
    low = dctn(levels.astype(float))[:8, :8].reshape(-1)
    bits = low > np.median(low[1:])
    expected = sum(int(bit) << (63 - position) for position, bit in enumerate(bits) if position)
    assert perceptual_hash(Image.fromarray(levels).convert("RGB")) == expected


def test_images_without_structure_are_alike() -> None:
    assert {perceptual_hash(Image.new("RGB", (50, 70), colour)) for colour in ("black", "white", "teal")} == {0}


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (5000, 7)])
def test_any_size_has_a_hash(size: tuple[int, int]) -> None:
    assert 0 <= perceptual_hash(Image.new("RGB", size, "red")) < 2**64
