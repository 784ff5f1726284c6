from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from raw_images import chunk

from embedcore.images.sources import FileSource

MakeImage = Callable[..., Path]
MakeFolder = Callable[..., Path]


def noise(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth random colours, uint8 [height, width, channels]: with structure that resizing filters and JPEG change."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))[:height, :width]


@pytest.fixture
def make_image() -> MakeImage:
    """make_image(path, seed=0, size=(height, width)) writes an RGB image file and returns its path."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(seed, *size)).save(path)
        return path

    return make


@pytest.fixture
def make_folder(tmp_path: Path, make_image: MakeImage) -> MakeFolder:
    """make_folder({"cat": 3, "dog": 2}) writes that many images into each class folder and returns the root."""

    def make(classes: dict[str, int], *, root: str = "photos", size: tuple[int, int] = (24, 32)) -> Path:
        for position, (name, count) in enumerate(classes.items()):
            for image in range(count):
                make_image(tmp_path / root / name / f"{image:03}.png", seed=1000 * position + image, size=size)
        return tmp_path / root

    return make


def encoded(suffix: str, **options: object) -> bytes:
    """A sound image file of 48 × 64 pixels."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (48, 64, 3), np.uint8)  # noise: every byte of the file counts
    kind = Image.registered_extensions()[suffix]
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *, before: bytes = b"", data: bytes = b"\0" * 100) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def with_bytes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def bmp_of(width: int, height: int) -> bytes:
    return with_bytes(encoded(".bmp"), 18, struct.pack("<ii", width, height))


def tiff_of(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + b"\0" * 100


def written_here(suffix: str) -> bool:
    """Whether this Pillow writes the format; older ones lack AVIF."""
    return Image.registered_extensions().get(suffix) in Image.SAVE


def halved(suffix: str) -> bytes:
    content = encoded(suffix)
    return content[: len(content) // 2]


# Content of a damaged file of this name, and the audit's reason.
DAMAGED_CONTENT: dict[str, tuple[Callable[[], bytes], str]] = {
    **{
        f"half{suffix}": (lambda suffix=suffix: halved(suffix), reason)
        for suffix, reason in {
            ".png": "truncated",
            ".jpg": "truncated",
            ".gif": "truncated",
            ".webp": "not an image|could not create|decod",
            ".avif": "decod|not an image",
            ".bmp": "truncated",
            ".tif": ".",
            ".jp2": ".",
            ".ppm": "truncated",
            ".tga": "truncated",
            ".pcx": "truncated",
        }.items()
        if written_here(suffix)
    },
    **{
        f"header{suffix}": (lambda suffix=suffix: encoded(suffix)[:20], ".")
        for suffix in (".png", ".jpg", ".gif", ".webp", ".avif", ".bmp", ".tif", ".jp2")
        if written_here(suffix)
    },
    "empty.png": (lambda: b"", "the file is empty"),
    "empty.jpg": (lambda: b"", "the file is empty"),
    "text.png": (lambda: b"This was a picture once.\n", "not an image that Pillow can read"),
    "page.jpg": (lambda: b"<!DOCTYPE html><title>404 Not Found</title>", "not an image"),
    "drawing.png": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "archive.webp": (lambda: b"PK\x03\x04" + b"\0" * 60, "not an image"),
    "pickle.png": (lambda: pickle.dumps({"image": [1, 2, 3]}), "not an image"),
    "noise.jpeg": (lambda: np.random.default_rng(0).bytes(5000), "not an image"),
    "zeros.bmp": (lambda: bytes(4096), "not an image"),
    "bomb.png": (lambda: png(60_000, 60_000), "more than 250 megapixels"),
    "bomb.gif": (lambda: with_bytes(encoded(".gif"), 6, b"\xff" * 4), "more than 250 megapixels"),
    "bomb.bmp": (lambda: bmp_of(50_000, 50_000), "more than 250 megapixels"),
    "bomb.tif": (lambda: tiff_of(100_000, 100_000), "more than 250 megapixels"),
    "text bomb.png": (
        lambda: png(4, 4, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22)))),
        "too large|large",
    ),
    "stripe.png": (lambda: png(1, 20_000, data=bytes(80_000)), "too elongated"),
    "broken stream.png": (lambda: with_bytes(encoded(".png"), 60, b"\xff" * 40), "."),
    "broken header.png": (lambda: with_bytes(encoded(".png"), 18, b"\xff"), "."),
    "no width.png": (lambda: png(0, 5), "."),
    "no pixels.png": (lambda: png(50, 50, data=b""), "."),
}


def dangling(path: Path) -> None:
    path.symlink_to("nowhere.png")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


DAMAGED_KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "dangling.png": (dangling, "No such file or directory"),
    "loop.jpg": (loop, "Too many levels of symbolic links"),
    "device.png": (device, "not a regular file"),
    "pipe.jpg": (pipe, "not a regular file"),
}


@dataclass(frozen=True)
class Damaged:
    """A file that cannot be read."""

    path: Path
    reason: str
    """Regular expression of the audit's reason."""


def damage(folder: Path, name: str) -> Damaged:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name in DAMAGED_KINDS:
        make, reason = DAMAGED_KINDS[name]
        make(path)
    else:
        content, reason = DAMAGED_CONTENT[name]
        path.write_bytes(content())
    return Damaged(path, reason)


@pytest.fixture(params=[*DAMAGED_CONTENT, *DAMAGED_KINDS])
def damaged_file(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    """Each of 40 damaged files."""
    return damage(tmp_path, request.param)


@pytest.fixture
def damage_all() -> Callable[[Path], dict[str, str]]:
    """damage_all(folder) writes all 40 damaged files there and returns name → regular expression of the reason."""
    return lambda folder: {name: damage(folder, name).reason for name in [*DAMAGED_CONTENT, *DAMAGED_KINDS]}


class CountingSource(FileSource):
    """Records which images were read and decoded."""

    read: ClassVar[list[int]] = []
    decoded: ClassVar[list[int]] = []

    def digest(self, index: int) -> str:
        self.read.append(index)
        return super().digest(index)

    def preview(self, index: int):
        self.decoded.append(index)
        return super().preview(index)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingSource]]:
    """A class through which folders are read; its lists are empty at first."""
    monkeypatch.setattr("embedcore.images.folders.FileSource", CountingSource)
    CountingSource.read, CountingSource.decoded = [], []
    return CountingSource


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the stamps of recently changed files."""
    monkeypatch.setattr("embedcore.images.ledger._TICK_NS", -(10**12))


@pytest.fixture
def root(make_folder: MakeFolder) -> Path:
    """Three images of cats and two of dogs."""
    return make_folder({"cat": 3, "dog": 2})


@pytest.fixture
def paths(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))
