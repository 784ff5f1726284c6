"""Find the columns of a table, or the keys of a dataset's items, that contain images and classes, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcore.errors import UsageError, option

NAMES: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"),
    "label": ("label", "class", "class_name", "category", "target"),
    "role": ("role",),
    "split": ("split",),
}
"""Names of each column that are recognised, without regard to case."""
NEEDED = ("path", "label")
"""Columns without which a table is not a dataset."""
_KEYS = {**{kind: kind for kind in NAMES}, "image": "path"}
"""Kind of column by the key that a user writes for it."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are used: path, and label, role and split if it has them."""

    values: Mapping[str, Sequence[Any]]
    """By kind, such as ``path``."""
    names: Mapping[str, str]
    """The name of each in the table, for messages."""


def parse_columns(text: str, separator: str = ",") -> dict[str, str]:
    """Return the columns that a text names, by kind. Raises ValueError, with a message for the user.

    >>> parse_columns("image=photo, label=class")
    {'path': 'photo', 'label': 'class'}
    """
    return _by_kind([part.partition("=")[::2] for part in text.split(separator)], separator)


def chosen_columns(columns: Mapping[str, str] | str | None) -> dict[str, str]:
    """Return the columns that a user names, as a mapping or a text for :func:`parse_columns`. Raises UsageError."""
    try:
        if isinstance(columns, str):
            return parse_columns(columns)
        return _by_kind([*columns.items()] if isinstance(columns, Mapping) else [(columns, "")] if columns else [])
    except ValueError as error:
        raise UsageError(f"columns {str(columns)[:100]!r}: {error}") from error


def _by_kind(pairs: Sequence[tuple[Any, Any]], separator: str = ",") -> dict[str, str]:
    chosen: dict[str, str] = {}
    for key, name in pairs:
        kind = _KEYS.get(str(key).strip())
        if kind is None or kind in chosen or not isinstance(name, str) or not name.strip():
            raise ValueError(f"write path=NAME{separator}label=NAME, with the names of your columns (also role, split)")
        chosen[kind] = name.strip()
    return chosen


def find_columns(
    names: Sequence[Any],
    chosen: Mapping[str, str],
    where: str,
    wanted: str,
    *,
    word: str = "column",
    first: str = "path",
    needed: Sequence[str] = NEEDED,
) -> dict[str, int]:
    """Return the position in ``names`` of each column that is used, by kind.

    A column is the ``chosen`` one, else the one that is called like its kind, else the only one with another name of
    `NAMES`. ``first``: what the kind path is called. In error messages, ``where`` comes first, ``wanted`` says which
    names are needed, and ``word`` stands for column.

    Raises UsageError if a ``needed`` column is missing or one is ambiguous.

    >>> find_columns(["File", "weight", "class"], {}, "shop.csv", "")
    {'path': 0, 'label': 2}
    """
    words = [_word(name) for name in names]
    found: dict[str, int] = {}
    for kind, known in NAMES.items():
        title = first if kind == "path" else kind
        name = _word(chosen.get(kind, title))
        places = [place for place, each in enumerate(words) if each == name]
        if not places and kind in chosen:
            raise UsageError(
                f"{where}: no {word} {chosen[kind]!r}, which was chosen for {kind}; it has {_listed(names)}"
            )
        if not places:
            places = [place for place, each in enumerate(words) if each in known]
        if len({words[place] for place in places}) > 1:
            first_one, second = (str(names[place]).strip() for place in places[:2])
            raise UsageError(
                f"{where}: {first_one!r} or {second!r} may be the {title}: choose a {word}, such as "
                f"{option('columns', f'{kind}={first_one}')}"
            )
        if len(places) > 1:
            raise UsageError(f"{where}: two {word}s {words[places[0]]!r}: rename one of them")
        if places:
            found[kind] = places[0]
    missing = [kind for kind in needed if kind not in found]
    if missing:
        has = ",".join(words)
        split_wrongly = len(words) == 1 and (";" in has or "\t" in has)
        yours = option("columns", ",".join(f"{kind}=NAME" for kind in missing))
        remedy = "separate the columns by commas" if split_wrongly else f"or name yours: {yours}"
        title = first if missing[0] == "path" else missing[0]
        raise UsageError(f"{where}: no {word} {title!r}; {wanted}, not {has!r}; {remedy}")
    return found


def _word(name: Any) -> str:
    return str(name).strip().lower()


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name).strip() for name in names[:10])
    return f"{shown}, …" if len(names) > 10 else shown
