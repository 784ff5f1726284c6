"""What each kind of field of a result may hold.

Every function gives the plain value of what it accepts, or raises TypeError or ValueError whose message says what the
field must be ("a number"). Numbers that are not finite become None; inside mappings and lists they are dropped.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any

from embedcore.plain import one_line, printable_lines


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return one_line(value)


def lines(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("text")
    return printable_lines(value or "")


def name(value: object) -> str:
    if not isinstance(value, str) or not one_line(value):
        raise TypeError("text that is not empty")
    return one_line(value)


def one_of(allowed: Collection[str]) -> Callable[[object], str]:
    """A check for text that is one of `allowed`."""

    def checked(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return value

    return checked


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise TypeError("a whole number above 0")
    return int(value)


def number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError("a number")
    try:
        plain = float(value)
    except OverflowError:  # an integer beyond the largest float
        return None
    return plain if math.isfinite(plain) else None


def optional(check: Callable[[object], Any]) -> Callable[[object], Any]:
    def checked(value: object) -> Any:
        return None if value is None else check(value)

    return checked


def optional_flag(value: object) -> bool:
    return False if value is None else flag(value)


def input_size(value: object) -> tuple[int, ...]:
    try:
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise TypeError
        return tuple(count(item) for item in value)
    except TypeError:
        raise TypeError("three whole numbers above 0") from None


def weights(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(x, str) for pair in value.items() for x in pair):
        raise TypeError("an object of text values")
    return {one_line(key): one_line(item) for key, item in value.items()}


def mapping_of_numbers(value: object) -> dict[str, float]:
    if value is None:
        return {}
    try:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError
        plain = {one_line(key): None if item is None else number(item) for key, item in value.items()}
    except TypeError:
        raise TypeError("an object of numbers") from None
    return {key: item for key, item in plain.items() if item is not None}


def intervals(value: object) -> dict[str, tuple[float, float]]:
    if value is None:
        return {}
    try:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError
        plain = {one_line(key): _pair(item) for key, item in value.items()}
    except TypeError:
        raise TypeError("an object of [low, high] pairs") from None
    return {key: item for key, item in plain.items() if item is not None}


def _pair(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError
    low, high = (None if item is None else number(item) for item in value)
    if low is None or high is None:
        return None
    if low > high:
        raise TypeError
    return low, high


def durations(value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    try:
        if not isinstance(value, list | tuple):
            raise TypeError
        plain = [number(item) for item in value]
    except TypeError:
        raise TypeError("a list of seconds") from None
    return tuple(item for item in plain if item is not None)
