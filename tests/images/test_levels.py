"""Levels of more and of fewer than 8 bits, and transparent levels."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image
from raw_images import raw_png, raw_tiff

from embedcore.images.audit import audit
from embedcore.images.decode import BadImageError, load_preview, load_rgb
from embedcore.images.sources import FileSource, MemorySource

SIGNED, FLOAT = {339: 2}, {339: 3}
WHITE_IS_ZERO = {262: 0}


def decoded(content: bytes) -> list:
    """Red of the first row, alike in both ways of decoding."""
    rgb, (preview, _) = load_rgb(content, "x"), load_preview(content, "x")
    np.testing.assert_array_equal(rgb, preview)
    return np.asarray(rgb)[0, :, 0].tolist()


def refusal(content: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        load_rgb(content, "x")
    return caught.value.reason


def grey(kind: str, levels: list[float], tags: dict[int, int]) -> bytes:
    array = np.array(levels, kind)
    return raw_tiff(len(levels), 1, 8 * array.itemsize, array.tobytes(), tags)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (grey("<u2", [0, 257, 32768, 65535], {}), [0, 1, 128, 255]),
        (grey("<u2", [0, 257, 32768, 65535], WHITE_IS_ZERO), [255, 254, 127, 0]),
        (grey("<u1", [0, 10, 255], WHITE_IS_ZERO), [255, 245, 0]),
        (grey("<i2", [0, 16384, 32767], SIGNED), [0, 128, 255]),
        (grey("<i4", [0, 257, 65535], SIGNED), [0, 1, 255]),
        (grey("<u4", [0, 257, 65535], {}), [0, 1, 255]),
        (grey("<f4", [0, 0.2, 1], FLOAT), [0, 51, 255]),
        (grey("<f4", [0, 0.2, 1], {**FLOAT, **WHITE_IS_ZERO}), [255, 204, 0]),
        (grey("<u2", [0, 0, 0], {}), [0, 0, 0]),  # truly black
        (raw_tiff(2, 1, 12, bytes([0xFF, 0xF8, 0x00])), [255, 128]),  # 4095 and 2048
        (b"P5 3 1 4095\n" + np.array([0, 2048, 4095], ">u2").tobytes(), [0, 128, 255]),
        (b"P5 3 1 65535\n" + np.array([0, 32768, 65535], ">u2").tobytes(), [0, 128, 255]),
        (b"Pf 3 1 -1.0\n" + np.array([0, 0.2, 1], "<f4").tobytes(), [0, 51, 255]),
    ],
)
def test_deep_levels_fill_the_range(content: bytes, expected: list[int]) -> None:
    assert decoded(content) == expected


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_byte_order_and_compression_change_nothing(mode: str, compression: str | None) -> None:
    kind, white = {"I;16": ("<u2", 65535), "I;16B": (">u2", 65535), "I": ("<i4", 65535), "F": ("<f4", 1)}[mode]
    levels = (np.array([0, 0.25, 0.5, 1]) * white).astype(kind)
    buffer = io.BytesIO()
    Image.frombytes(mode, (4, 1), levels.tobytes()).save(buffer, "TIFF", compression=compression)
    assert decoded(buffer.getvalue()) == [0, 64, 128 if mode == "F" else 127, 255]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (grey("<i4", [0, 14, 70_000], SIGNED), "levels from 0 to 70000, expected levels from 0 to 65535"),
        (grey("<i4", [0, 2**31 - 1], SIGNED), "levels from 0 to 2147483647, expected "),
        (grey("<i4", [-5, 65535], SIGNED), "levels from -5 to 65535, expected "),
        (grey("<i4", [0, 100, 255], SIGNED), "levels from 0 to 255 are nearly black"),
        (grey("<u4", [0, 2**32 - 1], {}), "levels from -1 to 0, expected "),
        (grey("<i2", [-5, 30_000], SIGNED), "levels from -5 to 30000, expected levels from 0 to 32767"),
        (grey("<u2", [0, 4095], {}), "levels from 0 to 4095 are nearly black, .*12 bits stored as 16"),
        (grey("<f4", [0, 128, 255], FLOAT), "levels from 0 to 255, expected floats from 0 to 1"),
        (grey("<f4", [-0.5, 0.5], FLOAT), "levels from -0.5 to 0.5, expected "),
        (grey("<f4", [0, np.nan, 1], FLOAT), "levels from nan to nan, expected "),
        (grey("<f4", [0, np.inf], FLOAT), "levels from 0 to inf, expected "),
        (grey("<f4", [0, 0.001], FLOAT), "levels from 0 to 0.001 are nearly black"),
    ],
)
def test_levels_whose_white_is_unknown_are_refused(content: bytes, text: str) -> None:
    assert re.match(text, refusal(content))
    assert refusal(content).isprintable()


def test_a_ramp_of_12_bits_keeps_256_levels_or_is_refused() -> None:
    ramp = np.arange(4096, dtype=np.uint16)
    assert "nearly black" in refusal(grey("<u2", ramp.tolist(), {}))
    assert len(set(decoded(grey("<u2", (ramp * 16).tolist(), {})))) == 256


@pytest.mark.parametrize("highest", [4095, 65535])
def test_16_bit_colours_that_are_nearly_black_are_refused(highest: int) -> None:
    levels = np.array([[0, highest, 40], [10, 20, 30]], ">u2")
    content = raw_png(2, 1, 16, 2, b"\0" + levels.tobytes())
    if highest == 65535:
        np.testing.assert_array_equal(np.asarray(load_rgb(content, "x"))[0], levels >> 8)
    else:
        assert refusal(content).startswith("16-bit colours up to 4095 at most are nearly black")


def test_levels_are_turned_upright_too() -> None:
    ramp = np.arange(0, 60_000, 10_000, np.uint16).reshape(2, 3)
    content = raw_tiff(3, 2, 16, ramp.astype("<u2").tobytes(), {274: 6, 262: 0})
    expected = np.rint((1 - np.rot90(ramp, -1) / 65535) * 255)
    np.testing.assert_array_equal(np.asarray(load_rgb(content, "x"))[..., 0], expected)


def test_images_in_memory_are_read_by_the_same_rule() -> None:
    good = Image.fromarray(np.array([[0, 65535]], np.int32))
    bad = Image.fromarray(np.array([[0, 128.0, 255]], np.float32))
    first, second = audit(MemorySource((("#0", good), ("#1", bad)), portable=False))
    assert not first.reason and first.facts is not None
    assert second.reason.startswith("levels from 0 to 255, expected floats from 0 to 1")


@pytest.mark.parametrize(
    ("bits", "packed", "transparent", "expected"),
    [
        (1, b"\x80", 1, [255, 0]),
        (1, b"\x80", 0, [255, 255]),
        (2, b"\x18", 1, [0, 255, 170, 0]),
        (4, b"\x35", 3, [255, 85]),
        (8, b"\x03\x04", 3, [255, 4]),
        (16, struct.pack(">HH", 1000, 40_000), 1000, [255, 156]),
        (16, struct.pack(">HH", 0, 65_535), 65_535, [0, 255]),
    ],
)
def test_a_transparent_grey_level_shows_white_at_every_depth(
    bits: int, packed: bytes, transparent: int, expected: list[int]
) -> None:
    content = raw_png(len(expected), 1, bits, 0, b"\0" + packed, tRNS=struct.pack(">H", transparent))
    assert decoded(content) == expected


def test_a_transparent_16_bit_colour_shows_white() -> None:
    levels = np.array([[1000, 40_000, 65_535], [500, 40_000, 65_535]], ">u2")
    content = raw_png(2, 1, 16, 2, b"\0" + levels.tobytes(), tRNS=levels[0].tobytes())
    np.testing.assert_array_equal(load_rgb(content, "x"), [[[255] * 3, [1, 156, 255]]])


def test_gamma_is_not_applied_as_timm_does_not() -> None:
    plain = raw_png(2, 1, 8, 0, b"\0" + bytes([100, 200]))
    assert decoded(raw_png(2, 1, 8, 0, b"\0" + bytes([100, 200]), gAMA=struct.pack(">I", 100_000))) == decoded(plain)


def test_a_cmyk_jpeg_is_read_alike_with_and_without_adobes_marker() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8), "CMYK").save(buffer, "JPEG")
    content = buffer.getvalue()
    start = content.index(b"\xff\xee")
    stripped = content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]
    assert b"Adobe" in content and b"Adobe" not in stripped
    assert decoded(stripped) == decoded(content)
    with Image.open(io.BytesIO(stripped)) as plain:
        np.testing.assert_array_equal(load_rgb(stripped, "x"), plain.convert("RGB"))


def test_the_audit_names_refused_levels(tmp_path) -> None:
    (tmp_path / "float.tif").write_bytes(grey("<f4", [0, 200], FLOAT))
    (finding,) = audit(FileSource(("float.tif",), str(tmp_path)))
    assert finding.reason.startswith("levels from 0 to 200, expected floats from 0 to 1")
