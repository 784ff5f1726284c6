"""Rows of docs/datasets.md: folders, and image files of every kind."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dataset_kinds import CATS_AND_DOGS, PHOTOS, Arguments, Kind, photos
from PIL import Image
from raw_images import raw_png, raw_tiff

ACCENTED = unicodedata.normalize("NFC", "\u00e9t\u00e9"), unicodedata.normalize("NFD", "\u00e9t\u00e9")
SIGNED, FLOAT, WHITE_IS_ZERO = {339: 2}, {339: 3}, {262: 0}


def folder_of(*names: str, **options: Any) -> Callable[[Path], Arguments]:
    """A folder with a photo of each name."""

    def make(folder: Path) -> Arguments:
        photos(folder, names)
        return Arguments(folder, options=options)

    return make


def with_metadata(folder: Path) -> Arguments:
    names = [f"{number}.png" for number in range(5)]
    photos(folder / "train", names)
    rows = [f"train/{name},{label}" for name, label in zip(names, ["cat", "cat", "dog", "dog", "dog"], strict=True)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    return Arguments(folder)


def with_metadata_by_split(folder: Path) -> Arguments:
    for split, labels in {"train": ["cat", "dog", "dog"], "test": ["cat", "dog"]}.items():
        names = [f"{split}-{number}.png" for number in range(len(labels))]
        photos(folder / split, names)
        rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
        (folder / split / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    return Arguments(folder)


FOLDERS = [
    Kind(
        "a folder for each class",
        folder_of(*PHOTOS),
        "one set, leave-one-out; the class is the path of the folder",
        CATS_AND_DOGS,
    ),
    Kind(
        "folders `query/` and `gallery/` (or `reference/`) with classes in each",
        folder_of("query/cat/0.png", "gallery/cat/1.png", "gallery/dog/0.png", "query/dog/1.png"),
        "queries retrieve references",
        {"cat": 2, "dog": 2},
        queries=2,
    ),
    Kind(
        "folders `train/` and one of `val/`, `test/`, …",
        folder_of("train/cat/0.png", "val/cat/1.png", "train/dog/0.png", "val/dog/1.png"),
        "held-out images are the queries, training images the references",
        {"cat": 2, "dog": 2},
        queries=2,
        note="val/ are the queries, train/ the references (--embed-split loo / split='loo' makes them one set)",
    ),
    Kind(
        "`metadata.csv` with `file_name` and a label, and no class folders (Hugging Face's `imagefolder`)",
        with_metadata,
        "the table decides, as with `csv:FOLDER/metadata.csv`",
        CATS_AND_DOGS,
        note="classes are those of metadata.csv",
    ),
    Kind(
        "the same in each of the folders `train/` and `test/` (or `val/`, …)",
        with_metadata_by_split,
        "held-out images are the queries, training images the references; paths are relative to the table's folder",
        CATS_AND_DOGS,
        queries=2,
        note="test/ are the queries, train/ the references (--embed-split loo / split='loo' makes them one set)",
    ),
    Kind(
        "folders created by a NAS or an operating system: `@eaDir`, `#recycle`, `$RECYCLE.BIN`, `@Recycle`, "
        "`__MACOSX`, `lost+found`, `Thumbnails`, `__pycache__`, …",
        folder_of(*PHOTOS, "cat/@eaDir/0.png/SYNO_THUMB.png", "#recycle/9.png", "__MACOSX/cat/0.png"),
        "ignored at any depth",
        CATS_AND_DOGS,
        note="ignored: #recycle/, @eaDir/, __MACOSX/",
    ),
    Kind(
        "hidden folders and files: `.thumbnails`, `.git`, `._0.png`",
        folder_of(*PHOTOS, ".thumbnails/0.png", "cat/._0.png"),
        "ignored",
        CATS_AND_DOGS,
        note="ignored: .thumbnails/, 1 hidden file",
    ),
    Kind(
        "one class name in both forms of Unicode (NFC and NFD)",
        folder_of(f"{ACCENTED[0]}/0.png", f"{ACCENTED[1]}/1.png", "dog/0.png"),
        "one class",
        {ACCENTED[0]: 2, "dog": 1},
    ),
    Kind(
        "class names that differ in case or white space only",
        folder_of("Cat/0.png", "Cat/1.png", "cat/0.png"),
        "different classes",
        {"Cat": 2, "cat": 1},
        note="classes that differ in case or white space only are different classes: 'Cat', 'cat'",
    ),
]


def with_image(content: bytes, name: str = "odd.tif") -> Callable[[Path], Arguments]:
    """The five photos, and a cat whose file holds this."""

    def make(folder: Path) -> Arguments:
        photos(folder)
        (folder / "cat" / name).write_bytes(content)
        return Arguments(folder)

    return make


def grey(kind: str, levels: Sequence[float], tags: dict[int, int] | None = None) -> bytes:
    array = np.array(levels, kind)
    return raw_tiff(len(levels), 1, 8 * array.itemsize, array.tobytes(), tags or {})


def reads_as(*levels: int) -> Callable[[Any], None]:
    """The odd image, a row of grey pixels, has these levels."""

    def check(dataset: Any) -> None:
        (index,) = (number for number, name in enumerate(dataset.names) if "odd" in name)
        assert np.asarray(dataset.images.load(index))[0, :, 0].tolist() == list(levels)

    return check


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def upright(dataset: Any) -> None:
    (index,) = (number for number, name in enumerate(dataset.names) if "odd" in name)
    assert dataset.images.load(index).size == (10, 20)


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (20, 10), (9, 9, 9)), "JPEG", exif=exif)


def read(looks: str, content: bytes, happens: str, check: Callable[[Any], None], name: str = "odd.tif") -> Kind:
    return Kind(looks, with_image(content, name), happens, {"cat": 3, "dog": 3}, check=check)


IMAGES = [
    read("16-bit grey", grey("<u2", [0, 257, 65535]), "divided by 257", reads_as(0, 1, 255)),
    read(
        "12-bit grey with TIFF's BitsPerSample 12",
        raw_tiff(2, 1, 12, bytes([0xFF, 0xF8, 0x00])),
        "4095 is white",
        reads_as(255, 128),
    ),
    Kind(
        "12 bits stored as 16",
        with_image(grey("<u2", [0, 2000, 4095])),
        refused="levels from 0 to 4095 are nearly black, expected levels from 0 to 65535: scale them "
        "(12 bits stored as 16: by 16), or save it as 8 bits",
    ),
    read("signed 16-bit grey", grey("<i2", [0, 16384, 32767], SIGNED), "32767 is white", reads_as(0, 128, 255)),
    read(
        "a TIFF whose zero is white",
        grey("<u2", [0, 32768, 65535], WHITE_IS_ZERO),
        "inverted",
        reads_as(255, 127, 0),
    ),
    read("floats from 0 to 1", grey("<f4", [0, 0.2, 1], FLOAT), "times 255", reads_as(0, 51, 255)),
    Kind(
        "other floats",
        with_image(grey("<f4", [0, 50, 255], FLOAT)),
        refused="levels from 0 to 255, expected floats from 0 to 1: save it as 8 bits",
    ),
    read("32-bit integers up to 65535", grey("<i4", [0, 257, 65535], SIGNED), "as 16 bits", reads_as(0, 1, 255)),
    Kind(
        "32-bit integers above it, or negative ones",
        with_image(grey("<i4", [0, 257, 70000], SIGNED)),
        refused="levels from 0 to 70000, expected levels from 0 to 65535: save it as 8 bits",
    ),
    read(
        "a transparent colour or level, of any depth",
        raw_png(2, 1, 16, 0, b"\0" + np.array([0, 51400], ">u2").tobytes(), tRNS=b"\0\0"),
        "white",
        reads_as(255, 200),
        "odd.png",
    ),
    read("an EXIF orientation, in any format that has one", sideways(), "upright", upright, "odd.jpg"),
    Kind(
        "an image more than 256 times as long as wide",
        with_image(encoded(Image.new("L", (9999, 1)), "PNG"), "odd.png"),
        refused="'cat/odd.png': 9999 x 1 pixels",
    ),
    Kind(
        "a file that is damaged or not an image",
        with_image(b"not an image", "odd.jpg"),
        refused="'cat/odd.jpg': not an image that Pillow can read",
    ),
    Kind(
        "the same with `--embed-bad-images skip`",
        lambda folder: Arguments(with_image(b"not an image", "odd.jpg")(folder).images, options={"bad_images": "skip"}),
        "left out, and counted in every report",
        CATS_AND_DOGS,
    ),
]
