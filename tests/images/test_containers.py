"""Images with an orientation in their container are turned upright exactly once."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from raw_images import box

from embedcore.images import plugins
from embedcore.images.decode import load_preview, load_rgb
from embedcore.images.sources import FileSource

UUID = b"JpgTiffExif->JP2"
STORED = np.kron(np.array([[0, 85], [170, 255]], np.uint8), np.ones((10, 20), np.uint8))  # 20 high, 40 wide


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def heif(orientation: int, *, rotated_by_file: bool) -> bytes:
    """With the file's own rotation, as phones write it, or with EXIF alone."""
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    options = {"quality": -1, "chroma": 444}
    if rotated_by_file:
        file = pillow_heif.from_pillow(Image.fromarray(STORED).convert("RGB"))
        file.info["exif"] = exif(orientation).tobytes()
        file.save(buffer, **options)
    else:
        plugins.register()
        Image.fromarray(STORED).convert("RGB").save(buffer, "HEIF", exif=exif(orientation), **options)
    assert (b"irot" in buffer.getvalue()) == rotated_by_file
    return buffer.getvalue()


def jpeg_2000(orientation: int, *, last: bool = True, extended: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(STORED).convert("RGB").save(buffer, "JPEG2000", irreversible=False)
    content = buffer.getvalue()
    payload = UUID + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    exif_box = struct.pack(">I4sQ", 1, b"uuid", 16 + len(payload)) + payload if extended else box(b"uuid", payload)
    before = content.index(b"jp2c") - 4
    return content + exif_box if last else content[:before] + exif_box + content[before:]


def made(kind: str) -> bytes:
    return {
        "heif, rotated by the file": lambda: heif(6, rotated_by_file=True),
        "heif, EXIF alone": lambda: heif(6, rotated_by_file=False),
        "jp2, EXIF last": lambda: jpeg_2000(6),
        "jp2, EXIF first": lambda: jpeg_2000(6, last=False),
        "jp2, a box with a long length": lambda: jpeg_2000(6, last=False, extended=True),
    }[kind]()


KINDS = [
    "heif, rotated by the file",
    "heif, EXIF alone",
    "jp2, EXIF last",
    "jp2, EXIF first",
    "jp2, a box with a long length",
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_orientation_is_applied_exactly_once(kind: str) -> None:
    content = made(kind)
    upright = np.rot90(STORED, -1)
    rgb = load_rgb(content, "x")
    assert rgb.size == (20, 40)
    np.testing.assert_allclose(np.asarray(rgb)[..., 0].astype(int), upright, atol=4)
    preview, facts = load_preview(content, "x")
    assert preview.size == (20, 40) and (facts.width, facts.height) == (20, 40)


def test_avif_is_upright_once() -> None:
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    buffer = io.BytesIO()
    Image.fromarray(STORED).convert("RGB").save(buffer, "AVIF", exif=exif(6), quality=95)
    rgb = load_rgb(buffer.getvalue(), "x")
    np.testing.assert_allclose(np.asarray(rgb)[..., 0].astype(int), np.rot90(STORED, -1), atol=8)


def test_a_file_in_a_folder_is_upright_too(tmp_path) -> None:
    (tmp_path / "photo.jp2").write_bytes(jpeg_2000(8))
    assert FileSource(("photo.jp2",), str(tmp_path)).load(0).size == (20, 40)


@pytest.mark.parametrize("length", [0, 9, 2**31])  # OpenJPEG refuses shorter ones
def test_a_damaged_box_leaves_the_image_readable(length: int) -> None:
    content = jpeg_2000(6) + struct.pack(">I", length) + b"uuid" + UUID[:3]
    assert load_rgb(content, "x").size == (20, 40)


def test_exif_that_is_garbage_leaves_the_image_unturned() -> None:
    buffer = io.BytesIO()
    Image.fromarray(STORED).convert("RGB").save(buffer, "JPEG2000")
    assert load_rgb(buffer.getvalue() + box(b"uuid", UUID + b"garbage"), "x").size == (40, 20)
