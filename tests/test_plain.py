from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.plain import bytes_text, encodable, json_safe, one_line, printable_lines
from embedcore.report.board import columns, marks
from embedcore.report.history import history_text as history


@given(st.text())
def test_one_line_is_one_printable_line_and_idempotent(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in line)
    assert one_line(line) == line
    line.encode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("out of memory", "out of memory"),
        ("  a  b ", "a b"),
        ("a\r\n\tb", "a b"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("abc\u202edcb", "abc dcb"),
        ("bad\udcffbyte", "bad byte"),
        ("Größe 内 ±", "Größe 内 ±"),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text())
def test_printable_lines_is_idempotent(text: str) -> None:
    lines = printable_lines(text)
    assert printable_lines(lines) == lines
    lines.encode()


def test_printable_lines_keeps_lines_and_indentation() -> None:
    assert printable_lines("Traceback:\n  File \x1b[1m x\n\n") == "Traceback:\n  File  [1m x"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(_VALUES)
def test_json_safe_returns_strict_json_values(value: object) -> None:
    safe = json_safe(value)
    assert json.loads(json.dumps(safe, allow_nan=False)) == safe
    assert json_safe(safe) == safe


def test_json_safe_of_other_types() -> None:
    assert json_safe(np.float32(0.5)) == 0.5
    assert json_safe(np.int64(3)) == 3
    assert json_safe({1: math.inf, "p": Path("a/b"), "s": {"b", "a"}}) == {"1": None, "p": "a/b", "s": ["a", "b"]}


def test_our_characters_have_similar_ascii_substitutes() -> None:
    signs = [mark.sign for mark in marks._MARKS]
    assert marks.TIED in signs
    for sign in (*signs, columns.NOTHING, *history.BARS, "±", "×", "→", "…"):
        assert "?" not in encodable(sign, "ascii"), sign
    assert encodable("▁█ 内", "ascii") == "18 ?"


def test_lengths_have_three_digits() -> None:
    for size, text in (
        (None, "?"),
        (0, "0 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_400, "999 kB"),
        (999_600, "1.00 MB"),
        (2_500_000_000, "2.50 GB"),
        (3_000_000_000_000, "3.00 TB"),
    ):
        assert bytes_text(size) == text
