"""Datasets listed by the user: a csv file or a DataFrame ``path,label[,role]``, or lists of images and labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.images.sources import ROLE_WORDS, FileSource, LabelledImages, Role, source_of

_COLUMNS = ("path", "label", "role")


def read_table(file: Path, *, split: str) -> LabelledImages:
    """The images that a csv file names, in the order of its lines; paths are relative to the file's folder.

    The first line names the columns, of which any others are passed over. With split ``auto`` a column ``role``
    (``query``, ``reference`` or ``gallery``) divides the images, else they are one leave-one-out set. UTF-8; bytes that
    are not stand for themselves, as in file names.

    Whether the images are there and can be read is for the audit to find out, for all of them at once.

    Raises UsageError with the number of the line for whatever is wrong in it.
    """
    if not file.is_file():
        raise UsageError(f"no such csv file: {file.absolute()}")
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            rows = csv.DictReader(lines, skipinitialspace=True)
            rows.fieldnames = columns = [name.strip().lower() for name in rows.fieldnames or []]
            _expect_columns(columns, f"{file}, line 1", "the first line must name the columns")
            numbered = ((f"{file}, line {rows.line_num}", row) for row in rows)
            where = f"csv file {file.absolute()} (paths are relative to its folder)"
            found = _listed(numbered, columns, split, file.stem, where, file.parent)
    except csv.Error as error:
        raise UsageError(f"{file}, line {rows.line_num}: not readable as csv: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    if not found.class_names:
        raise UsageError(f"{file} names no images: nothing follows its first line")
    return found


def frame_images(frame: Any, *, split: str) -> LabelledImages:
    """The images that a pandas DataFrame names in its columns, as :func:`read_table`; paths as for ``open``."""
    columns = [str(name) for name in frame.columns]
    _expect_columns(columns, "the DataFrame", "it must have the columns")
    rows = zip((f"row {index} of the DataFrame" for index in frame.index), frame.to_dict("records"), strict=True)
    return _listed(rows, columns, split, "DataFrame", "the DataFrame", Path())


def listed_images(
    images: Sequence[Any], labels: Sequence[Any], roles: Sequence[Any] | None, *, split: str
) -> LabelledImages:
    """Paths, PIL images or arrays with the class of each, and its role if ``roles`` are given.

    Raises UsageError where the lists are not of one length, or hold something else.
    """
    for what, given in (("labels", labels), ("roles", roles)):
        if given is not None and len(given) != len(images):
            raise UsageError(f"{len(images)} images but {len(given)} {what}: one is needed for each image")
    names = [str(label) for label in labels]
    sides = None
    if roles is not None and split == "auto":
        sides = [_role(str(role), f"image {index} of the list") for index, role in enumerate(roles)]
    return LabelledImages("images", "the list of images", source_of(images), names, sides)


def _expect_columns(columns: Sequence[str], where: str, wanted: str) -> None:
    missing = [name for name in _COLUMNS[:2] if name not in columns]
    if missing:
        has = ",".join(columns)
        raise UsageError(f"{where}: no column {missing[0]!r}; {wanted} path,label[,role], it is {has!r}")


def _listed(
    rows: Iterable[tuple[str, Mapping[Any, Any]]], columns: Sequence[str], split: str, name: str, where: str, root: Path
) -> LabelledImages:
    """The images of rows, each with how it is called in a message; their paths are below ``root``."""
    paths: list[str] = []
    labels: list[str] = []
    roles: list[Role] | None = [] if split == "auto" and "role" in columns else None
    for place, row in rows:
        paths.append(_field(row, "path", place))
        labels.append(_field(row, "label", place))
        if roles is not None:
            roles.append(_role(_field(row, "role", place), place))
    _expect_some(paths, root, where)
    return LabelledImages(name, where, FileSource(tuple(paths), str(root)), labels, roles)


def _expect_some(paths: Sequence[str], root: Path, where: str) -> None:
    """Raise UsageError where not one of the images is there: then it is the folder that is wrong, not each of them."""
    if not paths or any(map(os.path.exists, (root / path for path in paths))):
        return
    looked = f"the first is looked for at {(root / paths[0]).absolute()}"
    here = "; it is there from the folder you are in: put the csv there, or write whole paths"
    hint = here if root.absolute() != Path.cwd() and any(map(os.path.exists, paths)) else ""
    raise UsageError(f"none of the {len(paths)} images of {where} is there: {looked}{hint}")


def _field(row: Mapping[Any, Any], column: str, where: str) -> str:
    value = row[column]
    text = "" if value is None or value != value else str(value).strip()  # a DataFrame has NaN where nothing is
    if not text:
        raise UsageError(f"{where}: column {column!r} is empty")
    return text


def _role(value: str, where: str) -> Role:
    if value.lower() not in ROLE_WORDS:
        raise UsageError(f"{where}: role {value!r} is none of {', '.join(ROLE_WORDS)}")
    return ROLE_WORDS[value.lower()]
