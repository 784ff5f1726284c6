"""Names of classes: when two are the same, and when they only look it."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_NAMED = 3


def canonical(name: str) -> str:
    """The name with composed characters (Unicode's NFC): macOS writes "é" as two, other systems as one.

    >>> canonical("e\\u0301") == "\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def lookalike_notes(names: Iterable[str]) -> tuple[str, ...]:
    """A note that names the classes which differ in case or white space only, if there are any.

    >>> lookalike_notes(["Cat", "cat", "dog"])
    ("classes that differ in case or white space only are taken for different ones: 'Cat', 'cat'",)
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for name in set(names):
        groups[" ".join(name.casefold().split())].add(name)
    alike = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    if not alike:
        return ()
    named = "; ".join(", ".join(map(repr, group)) for group in alike[:_NAMED])
    more = f"; and {len(alike) - _NAMED} more" if len(alike) > _NAMED else ""
    return (f"classes that differ in case or white space only are taken for different ones: {named}{more}",)
