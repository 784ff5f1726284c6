from __future__ import annotations

import contextlib
import io
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_images import raw_png

from embedcore.errors import UsageError
from embedcore.images import decode
from embedcore.images.decode import BadImageError, load_preview, load_rgb, to_rgb

GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


def colours(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def saved(image: Image.Image, tmp_path: Path, suffix: str, **options: object) -> Image.Image:
    file = tmp_path / f"image{suffix}"
    image.save(file, **options)
    return load_rgb(file.read_bytes(), file.name)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm"])
def test_an_opaque_8_bit_image_equals_timms(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"image{suffix}"
    Image.fromarray(colours()).save(file)
    with Image.open(file) as plain:
        np.testing.assert_array_equal(load_rgb(file.read_bytes(), "x"), plain.convert("RGB"))


def test_cmyk_equals_timms(tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    Image.fromarray(colours()).convert("CMYK").save(file)
    with Image.open(file) as plain:
        assert plain.mode == "CMYK"
        np.testing.assert_array_equal(load_rgb(file.read_bytes(), "x"), plain.convert("RGB"))


def test_grey_fills_all_channels(tmp_path: Path) -> None:
    pixels = np.asarray(saved(Image.fromarray(GRADIENT), tmp_path, ".png"))
    np.testing.assert_array_equal(pixels, np.repeat(GRADIENT[..., None], 3, axis=2))


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    image = saved(Image.fromarray(GRADIENT > 127), tmp_path, ".png")
    np.testing.assert_array_equal(np.asarray(image)[..., 1], np.where(GRADIENT > 127, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (3, 1), (40,) * (len(mode) - 1) + (255,))
    image.putpixel((1, 0), (40,) * (len(mode) - 1) + (0,))
    image.putpixel((2, 0), (40,) * (len(mode) - 1) + (102,))
    pixels = np.asarray(saved(image, tmp_path, ".png"))
    np.testing.assert_array_equal(pixels[0], [[40] * 3, [255] * 3, [round(40 * 0.4 + 255 * 0.6)] * 3])


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_transparent_palette_entry_shows_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = np.asarray(saved(image, tmp_path, suffix, transparency=0))
    np.testing.assert_array_equal(pixels[0], [[255] * 3, [200, 100, 50]])


def test_a_transparent_colour_of_an_rgb_png_shows_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (9, 8, 7))
    image.putpixel((1, 0), (1, 2, 3))
    pixels = np.asarray(saved(image, tmp_path, ".png", transparency=(9, 8, 7)))
    np.testing.assert_array_equal(pixels[0], [[255] * 3, [1, 2, 3]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 256, 257, 32768, 65279, 65535]], np.uint16)
    pixels = np.asarray(saved(Image.fromarray(levels), tmp_path, suffix))
    np.testing.assert_array_equal(pixels[0, :, 2], [0, 1, 1, 128, 254, 255])


def test_16_bit_rgb_png_keeps_the_high_byte(tmp_path: Path) -> None:
    samples = np.array([[[0x1234, 0xFFFF, 0x0080], [0xABCD, 0, 0x7F00]]], ">u2")
    png = raw_png(2, 1, 16, 2, b"\0" + samples.tobytes())
    pixels = np.asarray(load_rgb(png, "x"))
    np.testing.assert_allclose(pixels[0], samples[0] / 257, atol=1)


# What each EXIF orientation asks for, as operations on the stored rows and columns (EXIF 2.3, tag 0x0112).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"image{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(colours()).save(file, exif=exif, **options)
    stored = colours()
    if suffix == ".jpg":
        with Image.open(file) as plain:
            stored = np.asarray(plain.convert("RGB"))
    np.testing.assert_array_equal(load_rgb(file.read_bytes(), "x"), UPRIGHT[orientation](stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_image_unturned(tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    Image.fromarray(colours()).save(file, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert load_rgb(file.read_bytes(), "x").size == (30, 20)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_the_first_frame_of_an_animation_is_used(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    options = {"lossless": True} if suffix == ".webp" else {}
    image = saved(frames[0], tmp_path, suffix, save_all=True, append_images=frames[1:], **options)
    assert image.getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "header"])
def test_a_damaged_file_is_named_with_a_reason(kind: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(colours(64, 64)).save(whole, "PNG")
    content = whole.getvalue()
    kinds = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello", "header": content[:20]}
    with pytest.raises(BadImageError) as caught:
        load_rgb(kinds[kind], "cats/one\n.png")
    assert isinstance(caught.value, UsageError)
    assert caught.value.reason
    assert str(caught.value).startswith("cannot read image 'cats/one\\n.png': ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".bmp", ".tif", ".jp2", ".ppm", ".tga", ".pcx"])
def test_any_file_content_is_read_or_bad(suffix: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(colours(24, 32)).save(buffer, Image.registered_extensions()[suffix])
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        content = bytearray(buffer.getvalue())
        for place in rng.integers(0, min(len(content), rng.choice([60, 10**6])), 3):
            content[place] = rng.integers(0, 256)
        try:
            load_preview(bytes(content[: rng.integers(len(content) // 2, 2 * len(content))]), "x")
            outcomes.add("read")
        except BadImageError as error:
            assert error.reason.isprintable()
            outcomes.add("bad")
    assert "bad" in outcomes


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_preview_is_smaller_and_has_the_original_size(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours(600, 1100)).save(tmp_path / "large.jpg", exif=exif)
    content = (tmp_path / "large.jpg").read_bytes()
    whole = load_rgb(content, "x")
    rgb, facts = load_preview(content, "x")
    assert (facts.width, facts.height) == whole.size and facts.format == "JPEG" and facts.mode == "RGB"
    assert min(rgb.size) == 150  # a quarter
    small = whole.resize(rgb.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(rgb)).mean() < 6


def test_a_preview_misses_no_truncation(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)).save(buffer, "JPEG")
    content = buffer.getvalue()
    outcomes = set()
    for missing in range(1, 200):
        kinds = []
        for load in (load_rgb, load_preview):
            try:
                load(content[:-missing], "x")
                kinds.append("read")
            except BadImageError:
                kinds.append("bad")
        assert kinds[0] == kinds[1]
        outcomes.add(kinds[0])
    assert "bad" in outcomes


@pytest.mark.parametrize("load", [load_rgb, load_preview])
def test_a_decompression_bomb_is_refused(tmp_path: Path, load: Callable) -> None:
    file = tmp_path / "bomb.png"
    Image.new("L", (100, 101)).save(file)
    with pytest.raises(BadImageError, match=r"more than 0\.01 megapixels: .*\(--embed-max-megapixels"):
        load(file.read_bytes(), "bomb.png", 0.01)
    load(file.read_bytes(), "bomb.png", 0.0101)


def test_a_photo_of_200_megapixels_is_read() -> None:
    buffer = io.BytesIO()
    Image.new("1", (16_320, 12_240)).save(buffer, "PNG")
    _, facts = load_preview(buffer.getvalue(), "photo.png")
    assert (facts.width, facts.height) == (16_320, 12_240)


@pytest.mark.filterwarnings("error")
def test_an_image_below_the_limit_is_read_without_a_warning(tmp_path: Path) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    content = (tmp_path / "large.png").read_bytes()
    for load in (load_rgb, load_preview):
        load(content, "large.png", 0.015)  # Pillow warns at half its limit
    set_once = list(warnings.filters)
    load_rgb(content, "large.png", 0.015)
    assert warnings.filters == set_once
    warnings.resetwarnings()  # nor where there is no filter at all
    load_rgb(content, "large.png", 0.015)


@pytest.mark.parametrize("before", [1000, None])
def test_pillows_own_limit_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int | None) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", before)
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    content = (tmp_path / "large.png").read_bytes()

    def load(number: int) -> None:
        with contextlib.suppress(BadImageError):
            load_rgb(b"no image" if number % 3 else content, "x", 1 + number % 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, range(200)))
    assert before == Image.MAX_IMAGE_PIXELS


@dataclass
class Decoding:
    """The maximum number of images decoded at the same time."""

    now: int = 0
    most: int = 0


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    seen, lock, original = Decoding(), threading.Lock(), decode.to_rgb

    def slow(image: Image.Image) -> Image.Image:
        with lock:
            seen.now += 1
            seen.most = max(seen.most, seen.now)
        time.sleep(0.05)
        try:
            return original(image)
        finally:
            with lock:
                seen.now -= 1

    monkeypatch.setattr(decode, "to_rgb", slow)
    monkeypatch.setattr(decode, "_LARGE", 512 * 512)
    return seen


@pytest.mark.parametrize(
    ("name", "options", "load", "one_at_a_time"),
    [
        ("large.png", {}, load_rgb, True),
        ("large.png", {}, load_preview, True),
        ("large.jpg", {}, load_rgb, True),
        ("large.jpg", {}, load_preview, False),  # read at a quarter of its size
        ("large.jpg", {"progressive": True}, load_preview, True),  # whose decoder holds all of it
        ("small.png", {}, load_rgb, False),
    ],
)
def test_large_images_are_decoded_one_at_a_time(
    tmp_path: Path, decoding: Decoding, name: str, options: dict[str, bool], load: Callable, one_at_a_time: bool
) -> None:
    file = tmp_path / name
    Image.new("RGB", (600, 600) if name.startswith("large") else (500, 500)).save(file, **options)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: load(file.read_bytes(), name), range(8)))
    assert (decoding.most == 1) == one_at_a_time


def test_to_rgb_leaves_its_argument_alone() -> None:
    image = Image.new("RGBA", (2, 2), (1, 2, 3, 0))
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)
    assert image.mode == "RGBA" and image.getpixel((0, 0)) == (1, 2, 3, 0)
