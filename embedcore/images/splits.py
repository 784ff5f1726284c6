"""Queries and references by name: folders or values of a table's columns ``role`` and ``split``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcore.errors import UsageError, option
from embedcore.images.labels import is_missing
from embedcore.images.sources import ROLE_WORDS, Role
from embedcore.plain import counted

TRAINING, HELD_OUT = ("train", "training"), ("val", "valid", "validation", "test", "testing")
"""Names recognised as training and held-out splits."""
SPLITS = frozenset((*ROLE_WORDS, *TRAINING, *HELD_OUT))
"""Names recognised as parts of a dataset, lower case."""


@dataclass(frozen=True)
class Sides:
    """The rows of a table that are used."""

    rows: Sequence[int]
    roles: Sequence[Role] | None = None
    """Role of each of these rows; None: leave-one-out."""
    notes: tuple[str, ...] = ()


def named_sides(
    split: str, values: Iterable[str], key: Callable[[str], str], missing: Callable[[str], str]
) -> dict[str, Role]:
    """Return the role of each of the ``values`` that ``split`` names, such as ``train+val:test``.

    Values and names are compared by their ``key``. Raises UsageError for a name that is not among the values, with the
    text of ``missing(name)``, and for one on both sides.
    """
    references, _, queries = split.partition(":")
    values, sides = list(values), dict[str, Role]()
    roles: tuple[tuple[Role, str], ...] = ("reference", references), ("query", queries)
    for role, names in roles:
        for name in names.split("+"):
            found = [value for value in values if value and key(value) == key(name)]
            if not found:
                raise UsageError(f"split {split!r}: {missing(name)}")
            if sides.keys() & set(found):
                raise UsageError(f"split {split!r}: {name.strip()} cannot be on both sides")
            sides |= dict.fromkeys(found, role)
    return sides


def role_sides(names: Iterable[str]) -> dict[str, Role]:
    """Return the roles of the names such as ``query`` and ``gallery``; none unless both sides are named."""
    named = {name: ROLE_WORDS[name.lower()] for name in names if name.lower() in ROLE_WORDS}
    return named if len(set(named.values())) == 2 else {}


def training_sides(names: Sequence[str], where: str) -> dict[str, Role]:
    """Return the roles of one training and one held-out split among two or more ``names``.

    Raises UsageError, which begins with ``where``, if there are several of a kind.
    """
    training = [name for name in names if name.lower() in TRAINING]
    held_out = [name for name in names if name.lower() in HELD_OUT]
    if len(training) != 1 or len(held_out) != 1:
        first, second = [*dict.fromkeys((*training, *held_out, *names))][:2]
        raise UsageError(
            f"{where}: choose references and queries, such as {option('split', f'{first}:{second}')}, or use all of "
            f"them as one set with {option('split', 'loo')}"
        )
    return {training[0]: "reference", held_out[0]: "query"}


def sides_of_parts(
    parts: Sequence[str], split: str, where: str, missing: Callable[[str], str], suffix: str = ""
) -> tuple[Mapping[str, Role], tuple[str, ...]]:
    """Return the role of each part of a dataset that is used, none if all are one set; and notes.

    ``split`` decides as for folders (:func:`scan_folder`). ``where`` is followed by the parts, each with ``suffix``.
    Raises UsageError, with the text of ``missing(name)`` for a part that is named and not there.
    """
    if ":" in split:
        return named_sides(split, parts, lambda name: name.strip(" /").lower(), missing), ()
    listed = " and ".join(f"{name}{suffix}" for name in parts)
    if split == "loo" or len(parts) == 1:
        return {}, (f"{listed} are merged",) if len(parts) > 1 else ()
    if sides := role_sides(parts):
        return sides, ()
    sides = training_sides(parts, f"{where} {listed}")
    return sides, (sides_note(sides, suffix=suffix),)


def table_sides(columns: Mapping[str, Sequence[Any]], split: str, where: str, place: Callable[[int], str]) -> Sides:
    """Return the rows that ``split`` takes from a table, with their roles.

    ``auto`` follows the column ``role``; without one, the column ``split`` as :func:`scan_folder` follows folders:
    ``query`` and ``gallery`` (or ``reference``), or ``train`` and ``val`` (or ``test``). A column ``role`` may contain
    the latter too. ``REFERENCES:QUERIES`` names values of the column ``split`` (or ``role``), several joined by ``+``.
    ``loo`` takes all rows as one set.

    Raises UsageError if the columns do not decide.
    """
    rows = range(len(columns["path"]))
    if split == "loo":
        return Sides(rows)
    roles = [_word(value) for value in columns["role"]] if "role" in columns else None
    if roles is not None and split == "auto" and not {*roles} <= {*TRAINING, *HELD_OUT}:
        wrong = next((row for row, role in enumerate(roles) if role not in ROLE_WORDS), None)
        if wrong is not None:
            role = str(columns["role"][wrong])
            raise UsageError(f"{place(wrong)}: role {role!r} is not one of {', '.join(ROLE_WORDS)}")
        sides = [ROLE_WORDS[role] for role in roles]
        unused = len({*map(_word, columns.get("split", ()))}) > 1
        return Sides(rows, sides, ("the column 'split' is ignored: the column 'role' decides",) if unused else ())
    name = "role" if roles is not None and (split == "auto" or "split" not in columns) else "split"
    parts = roles if name == "role" else [_word(value) for value in columns.get("split", ())]
    values = list(dict.fromkeys(parts or ()))
    if ":" in split:
        if not parts:
            raise UsageError(f"split {split!r} names two values of a column 'split', and {where} has no such column")

        def missing(word: str) -> str:
            return f"{where} has no {word.strip()!r} in its column {name!r}, only {', '.join(values[:10])}"

        return _divided(parts, named_sides(split, values, _word, missing), name, place)
    if not parts:
        return Sides(rows)
    if named := role_sides(values):
        return _divided(parts, named, name, place)
    known = [value for words in (TRAINING, HELD_OUT) for value in values if value in words]
    if len(known) > 1:
        by_name = training_sides(known, f"{where} has a column {name!r} with {', '.join(known)}")
        return _divided(parts, by_name, name, place, sides_note(by_name, f"column {name!r}; "))
    if len(values) > 1:
        listed = ", ".join(map(repr, values[:5])) + (", …" if values[5:] else "")
        return Sides(rows, notes=(f"the column 'split' is ignored: its values ({listed}) are not train and test",))
    return Sides(rows)


def sides_note(sides: Mapping[str, Role], source: str = "", suffix: str = "") -> str:
    """Return the note on sides that were recognised by their names, reference first."""
    references, queries = (f"{name}{suffix}" for name in sides)
    loo = f"{option('split', 'loo')} makes them one set"
    return f"{queries} are the queries, {references} the references ({source}{loo})"


def _word(value: Any) -> str:
    return "" if is_missing(value) else str(value).strip().lower()


def _divided(
    parts: Sequence[str], sides: Mapping[str, Role], name: str, place: Callable[[int], str], *notes: str
) -> Sides:
    """Return the rows whose value of the column ``name`` is on a side."""
    if "" in parts:
        raise UsageError(f"{place(parts.index(''))}: column {name!r} is empty")
    rows = [row for row, part in enumerate(parts) if part in sides]
    if outside := len(parts) - len(rows):
        notes = (*notes, f"left out: {counted(outside, 'image')} whose {name!r} is not {' or '.join(sides)}")
    return Sides(rows, [sides[parts[row]] for row in rows], notes)
