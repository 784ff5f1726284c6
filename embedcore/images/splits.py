"""The sides of a table: what its columns ``role`` and ``split`` say of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcore.errors import UsageError
from embedcore.images.folders import HELD_OUT, TRAINING
from embedcore.images.labels import is_missing
from embedcore.images.sources import ROLE_WORDS, Role


@dataclass(frozen=True)
class Sides:
    """The rows of a table that are used."""

    rows: Sequence[int]
    roles: Sequence[Role] | None = None
    """Of these rows; None: leave-one-out."""
    notes: tuple[str, ...] = ()


def table_sides(columns: Mapping[str, Sequence[Any]], split: str, where: str, place: Callable[[int], str]) -> Sides:
    """Return the rows that ``split`` takes from a table, with their roles.

    ``auto`` follows the column ``role``; without one, the column ``split`` as :func:`scan_folder` follows folders:
    ``query`` and ``gallery`` (or ``reference``), or ``train`` and ``val`` (or ``test``). ``REFERENCES:QUERIES`` names
    values of the column ``split``, several with ``+`` between them. ``loo`` takes all rows as one set.

    Raises UsageError where the columns leave open what is asked.
    """
    rows = range(len(columns["path"]))
    if split == "loo":
        return Sides(rows)
    parts = [_word(value) for value in columns["split"]] if "split" in columns else None
    values = list(dict.fromkeys(parts or ()))
    if ":" in split:
        if parts is None:
            raise UsageError(f"split {split!r} names two values of a column 'split', and {where} has no such column")
        return _divided(parts, _named(values, split, where), where, place)
    if "role" in columns:
        roles = [role_of(value, place(row)) for row, value in enumerate(columns["role"])]
        unused = ("the column 'split' is not used: the column 'role' says which are queries",) if values[1:] else ()
        return Sides(rows, roles, unused)
    if parts is None:
        return Sides(rows)
    named = {value: ROLE_WORDS[value] for value in values if value in ROLE_WORDS}
    if len(set(named.values())) == 2:
        return _divided(parts, named, where, place)
    training = [value for value in values if value in TRAINING]
    held_out = [value for value in values if value in HELD_OUT]
    if len(training) + len(held_out) > 1:
        if len(training) != 1 or len(held_out) != 1:
            first, second = (*training, *held_out)[:2]
            raise UsageError(
                f"{where} has a column 'split' with {', '.join(training + held_out)}: say which are references and "
                f"which queries, such as --embed-split {first}:{second}; or --embed-split loo, which takes all of them "
                "as one set"
            )
        note = f"{held_out[0]} is looked for in {training[0]} (column 'split'; --embed-split loo takes both as one set)"
        return _divided(parts, {training[0]: "reference", held_out[0]: "query"}, where, place, note)
    if len(values) > 1:
        listed = ", ".join(map(repr, values[:5])) + (", …" if values[5:] else "")
        return Sides(rows, notes=(f"the column 'split' is not used: its values ({listed}) are not train and test",))
    return Sides(rows)


def role_of(value: Any, where: str) -> Role:
    """Return the role that a value names. Raises UsageError."""
    word = _word(value)
    if word not in ROLE_WORDS:
        raise UsageError(f"{where}: role {str(value)!r} is none of {', '.join(ROLE_WORDS)}")
    return ROLE_WORDS[word]


def _word(value: Any) -> str:
    return "" if is_missing(value) else str(value).strip().lower()


def _named(values: Sequence[str], split: str, where: str) -> dict[str, Role]:
    references, _, queries = split.partition(":")
    sides: dict[str, Role] = {}
    for role, names in (("reference", references), ("query", queries)):
        for name in names.split("+"):
            value = _word(name)
            if value not in values or not value:
                there = ", ".join(values[:10])
                raise UsageError(f"split {split!r}: {where} has no {name.strip()!r} in its column 'split', but {there}")
            if value in sides:
                raise UsageError(f"split {split!r}: {name.strip()} cannot be on both sides")
            sides[value] = "query" if role == "query" else "reference"
    return sides


def _divided(
    parts: Sequence[str], sides: Mapping[str, Role], where: str, place: Callable[[int], str], *notes: str
) -> Sides:
    """The rows whose value of ``split`` is on a side."""
    if "" in parts:
        raise UsageError(f"{place(parts.index(''))}: column 'split' is empty")
    rows = [row for row, part in enumerate(parts) if part in sides]
    if outside := len(parts) - len(rows):
        left_out = "1 image was" if outside == 1 else f"{outside} images were"
        notes = (*notes, f"{left_out} left out, since 'split' is not {' or '.join(sides)} there")
    return Sides(rows, [sides[parts[row]] for row in rows], notes)
