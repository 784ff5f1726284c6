"""Class names from the labels that users pass."""

from __future__ import annotations

import functools
import math
import numbers
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from embedcore.errors import UsageError
from embedcore.plain import counted

_MISSING_TEXT = frozenset({"nan", "<na>", "nat", "#n/a"})
"""How pandas, NumPy and spreadsheets write a missing value, lower case."""
_DOUBTFUL_TEXT = frozenset({"na", "n/a", "null", "none"})
"""How others write a missing value; may also be names of classes."""

_ALIKE_NAMED = 3
"""Maximum number of groups of similar class names to list."""

_NEGATIVE = re.compile(r"-\d+(\.0*)?")
_NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"
_SEVERAL = re.compile(rf"[\[{{].*[,:\s].*[\]}}]|{_NUMBER}(?:[\s,;]+{_NUMBER}){{3,}}", re.DOTALL | re.IGNORECASE)
"""A list, a mapping, or four or more numbers (boxes, one-hot rows) written as text."""


def class_names(labels: Iterable[Any], place: Callable[[int], str]) -> list[str]:
    """Return the class name of each label, [n].

    ``place(index)`` names the place of a label in messages. Raises UsageError for the first label that is not a class,
    see :func:`class_name`.
    """
    names: list[str] = []
    for label in labels:
        try:
            names.append(class_name(label))
        except ValueError as error:
            raise UsageError(f"{place(len(names))}: {error}") from error
    return names


def class_name(label: Any) -> str:
    """Return the class name of one label.

    Text is stripped and in Unicode's composed form (NFC). Numbers become integers: 1, 1.0 and a tensor of 1 are one
    class. Arrays and tensors with one element are that element.

    Raises ValueError, with a message that follows the label's place, for a missing value (see :func:`is_missing`, or
    the text "nan"), a negative number, a number with a fraction and several values.

    >>> [class_name(label) for label in (" cat ", 7, 7.0, np.array([7]), True)]
    ['cat', '7', '7', '7', 'True']
    """
    if type(label) is str:
        return _name_of_text(label)
    if (type(label) is int or isinstance(label, np.integer)) and label >= 0:  # the checks below are slow
        return str(int(label))
    label = _element(label)
    if is_missing(label):
        raise ValueError(_missing(label))
    if isinstance(label, bytes):
        try:
            return _name_of_text(label.decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"the label {label!r} is not UTF-8") from error
    if isinstance(label, bool | np.bool_):
        return str(bool(label))
    if isinstance(label, numbers.Real | Decimal):
        number = int(label) if isinstance(label, numbers.Integral) else float(label)
        if not math.isfinite(number) or number != int(number):
            raise ValueError(f"the label {label} is not a whole number: use the number of a class, or its name as text")
        return _name_of_text(str(int(number)))
    if getattr(type(label), "__str__", None) is not object.__str__:  # NumPy text, dates, enumerations
        return _name_of_text(str(label))
    raise ValueError(_several(f"a {type(label).__name__}"))


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: None, NaN, NaT, pandas' NA, a masked element, empty text."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str | bytes):
        return not value.strip()
    return isinstance(value, numbers.Number | np.generic) and bool(value != value)


def titled(labels: Iterable[Any], names: Sequence[str]) -> list[Any]:
    """Return the labels, with a class name in place of each label that is an index into ``names``."""
    return [names[label] if isinstance(label, int) and 0 <= label < len(names) else label for label in labels]


def canonical(name: str) -> str:
    """Return the name in Unicode's composed form (NFC): macOS writes "é" as two characters, other systems as one.

    >>> canonical("e\\u0301") == "\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def lookalike_notes(names: Iterable[str]) -> tuple[str, ...]:
    """Return a note on classes that differ in case or white space only, if there are any.

    >>> lookalike_notes(["Cat", "cat", "dog"])
    ("classes that differ in case or white space only are different classes: 'Cat', 'cat'",)
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        groups[" ".join(name.casefold().split())].add(name)
    alike = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    if not alike:
        return ()
    named = "; ".join(", ".join(map(repr, group)) for group in alike[:_ALIKE_NAMED])
    more = f"; and {len(alike) - _ALIKE_NAMED} more" if len(alike) > _ALIKE_NAMED else ""
    return (f"classes that differ in case or white space only are different classes: {named}{more}",)


def notes_on(names: Iterable[str]) -> tuple[str, ...]:
    """Return a note for each class whose name often means a missing label, such as "NA", and on similar names."""
    counts = Counter(names)
    doubtful = (
        f"class {name!r} has {counted(count, 'image')}: if the name means a missing label, leave them out"
        for name, count in sorted(counts.items())
        if name.lower() in _DOUBTFUL_TEXT
    )
    return (*doubtful, *lookalike_notes(counts))


def _element(label: Any) -> Any:
    """Return the single element of an array or tensor; anything else as it is. Raises ValueError for several."""
    shape = getattr(label, "shape", None)
    if shape is None or label is np.ma.masked or isinstance(label, np.generic):
        return label
    if math.prod(shape) != 1:
        raise ValueError(_several(f"a {type(label).__name__} of shape {list(shape)}"))
    return None if np.ma.is_masked(label) else label.item()


@functools.lru_cache(maxsize=2**16)
def _name_of_text(text: str) -> str:
    name = canonical(text.strip())
    if not name or name.lower() in _MISSING_TEXT:
        raise ValueError(_missing(text))
    if _NEGATIVE.fullmatch(name):
        raise ValueError(
            f"the label {name} is negative, which marks images without a class in many datasets: leave them out, or "
            "name the class in words"
        )
    if _SEVERAL.fullmatch(name):
        raise ValueError(_several(f"{name[:40]!r}"))
    return name


def _missing(label: Any) -> str:
    return f"the label is missing ({label!r}): leave the image out, or give it a class"


def _several(what: str) -> str:
    return f"the label is {what}: each image needs one class, a number or a text"
