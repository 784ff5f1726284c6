"""Datasets listed in a csv file: ``path,label[,role]``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.images.sources import FileSource, LabelledImages, Role

_ROLES: dict[str, Role] = {"query": "query", "reference": "reference", "gallery": "reference"}
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
    paths: list[str] = []
    labels: list[str] = []
    roles: list[Role] = []
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            rows = csv.DictReader(lines, skipinitialspace=True)
            columns = [name.strip().lower() for name in rows.fieldnames or []]
            rows.fieldnames = columns
            missing = [name for name in _COLUMNS[:2] if name not in columns]
            if missing:
                raise UsageError(
                    f"{file}, line 1: no column {missing[0]!r}; the first line must name the columns "
                    f"path,label[,role], it is {','.join(columns)!r}"
                )
            with_roles = split == "auto" and "role" in columns
            for row in rows:
                where = f"{file}, line {rows.line_num}"
                path, label = _field(row, "path", where), _field(row, "label", where)
                paths.append(path)
                labels.append(label)
                if with_roles:
                    roles.append(_role(row, where))
    except csv.Error as error:
        raise UsageError(f"{file}, line {rows.line_num}: not readable as csv: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    if not paths:
        raise UsageError(f"{file} names no images: nothing follows its first line")
    return LabelledImages(
        name=file.stem,
        where=f"csv file {file.absolute()}",
        source=FileSource(str(file.parent), tuple(paths)),
        class_names=labels,
        roles=roles if with_roles else None,
    )


def _field(row: Mapping[str, str | None], column: str, where: str) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise UsageError(f"{where}: column {column!r} is empty")
    return value


def _role(row: Mapping[str, str | None], where: str) -> Role:
    value = _field(row, "role", where)
    try:
        return _ROLES[value.lower()]
    except KeyError:
        raise UsageError(f"{where}: role {value!r} is none of {', '.join(_ROLES)}") from None
