"""Convert values to strict JSON and safe one-line text, whatever a model, a path or a foreign file contains."""

from __future__ import annotations

import codecs
import dataclasses
import math
import numbers
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence, Set
from typing import Any

# Control, format (bidirectional overrides, zero-width), surrogate; line and paragraph separators. Escape sequences in a
# model's error message must not reach the terminal, and lone surrogates cannot be written as UTF-8.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

_ASCII = {
    "…": "...", "±": "+-", "×": "x", "·": "|", "–": "-", "—": "-", "→": "->", "≥": ">=", "≤": "<=", "†": "+",
    "‡": "++", "≈": "~", "§": "#", "¶": "^", "‖": "||", **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True)),
}  # fmt: skip
"""ASCII substitutes for our own signs, for encodings that lack them."""


def one_line(text: str) -> str:
    r"""Return `text` on one line: unprintable characters become spaces, runs of white space one space; stripped.

    >>> one_line("CUDA error:\n  out of\tmemory\x1b[0m ")
    'CUDA error: out of memory [0m'
    """
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join("".join(" " if unicodedata.category(c) in _UNPRINTABLE else c for c in text).split())


def printable_lines(text: str) -> str:
    """Return `text` with lines and indentation kept, unprintable characters as spaces, and no white space at the
    ends of lines or empty lines at the end."""
    lines = (
        "".join(" " if unicodedata.category(c) in _UNPRINTABLE else c for c in line).rstrip()
        for line in text.expandtabs().splitlines()
    )
    return "\n".join(lines).rstrip("\n")


def wrapped(line: str, width: int) -> str:
    """Return `line` wrapped to `width` columns (at least 20), further lines indented by two more. Words that
    are wider are not broken.

    >>> wrapped("  not measured: 2 of 3 models", 20)
    '  not measured: 2 of\\n    3 models'
    """
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return textwrap.fill(line, max(width, 20), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def encodable(text: str, encoding: str | None) -> str:
    """Return `text` in characters of `encoding` (None: UTF-8): others become similar ASCII, or "?".

    >>> encodable("acc .50 ±.03 …", "latin-1"), encodable("acc .50 ±.03 …", "ascii")
    ('acc .50 ±.03 ...', 'acc .50 +-.03 ...')
    """
    encoding = encoding or "utf-8"
    return text.encode(encoding, ENCODABLE).decode(encoding)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_ASCII.get(c, "?") for c in error.object[error.start : error.end]), error.end


ENCODABLE = "embedcore-ascii"
"""Name of the error handler for Python's streams that replaces characters as `encodable` does."""
codecs.register_error(ENCODABLE, _in_ascii)


def json_safe(value: object) -> Any:
    """Return `value` as strict JSON values: numbers that are not finite become None, other objects their text.

    Numpy scalars become Python numbers, keys text, tuples and sets lists (sets sorted, so that a file is reproducible).

    >>> json_safe({"a": (1, float("nan")), "b": {"y", "x"}})
    {'a': [1, None], 'b': ['x', 'y']}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Mapping):
        return {json_safe(str(key)): json_safe(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((json_safe(item) for item in value), key=repr)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [json_safe(item) for item in value]
    return str(value)


def short_repr(value: Any, *hidden: str) -> str:
    """Return a dataclass instance as the call that makes it, without defaults and the `hidden` fields.

    >>> @dataclasses.dataclass
    ... class Size:
    ...     width: int = 1
    ...     height: int = 1
    >>> short_repr(Size(1, 2))
    'Size(height=2)'
    """
    fields = [field for field in dataclasses.fields(value) if field.repr and field.name not in hidden]
    changed = {field.name: found for field in fields if (found := getattr(value, field.name)) != field.default}
    return f"{type(value).__name__}({', '.join(f'{name}={found!r}' for name, found in changed.items())})"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return `count` and its noun, in the plural unless the count is 1.

    >>> counted(1, "case"), counted(1_250, "case"), counted(2, "entry", "entries")
    ('1 case', '1,250 cases', '2 entries')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def bytes_text(size: float | None) -> str:
    """Return a size with three digits in powers of 1000, such as ``1.45 MB``; "?" if unknown.

    >>> bytes_text(999), bytes_text(1_450_000), bytes_text(98_000_000), bytes_text(999_999_999)
    ('999 B', '1.45 MB', '98.0 MB', '1.00 GB')
    """
    if size is None:
        return "?"
    if size < 1000:
        return f"{size:.0f} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"
    return f"{value / 1000:.2f} TB"


def minute(when: str | None) -> str:
    """Return a time of the saved JSON to the minute; "" if unknown.

    >>> minute("2026-11-27T04:12:33.5+00:00"), minute(None)
    ('2026-11-27 04:12', '')
    """
    return one_line(when or "")[:16].replace("T", " ")


def listed(words: Sequence[str]) -> str:
    """Return words with commas and "and".

    >>> listed(["10", "25", "100"])
    '10, 25 and 100'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each key in which two mappings differ.

    >>> differences({"timm": "1.0.15", "seed": 0}, {"timm": "1.0.31", "seed": 0})
    ['timm 1.0.15, now 1.0.31']
    """
    keys = dict.fromkeys([*theirs, *ours])
    return [
        f"{key} {one_line(str(theirs.get(key)))[:60]}, now {one_line(str(ours.get(key)))[:60]}"
        for key in keys
        if theirs.get(key) != ours.get(key)
    ]
