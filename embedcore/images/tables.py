"""Datasets from a csv file or a DataFrame ``path,label[,role][,split]``, or from lists."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.images.labels import class_names, is_missing, notes_on
from embedcore.images.sources import FileSource, LabelledImages, source_of
from embedcore.images.splits import Sides, role_of, table_sides
from embedcore.plain import counted

_NEEDED = ("path", "label")
_KNOWN = (*_NEEDED, "role", "split")
_WANTED = "path,label[,role][,split]"

_ENCODINGS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
"""Byte order marks and their encodings; a file without one is UTF-8."""


def read_table(file: Path, *, split: str) -> LabelledImages:
    """Return the images of a csv file, in the order of its lines; paths are relative to the file's folder.

    The first line names the columns; columns other than path, label, role and split are ignored. See
    :func:`table_sides` for ``role`` and ``split``. The encoding is UTF-8, or that of a byte order mark. The audit
    checks later whether the images can be read.

    Raises UsageError with a line number for bytes of another encoding, an unclosed quote, more or fewer fields than
    columns, two columns with one name, an empty field, or a label that is not a class.
    """
    columns, lines = _columns_of(file)
    if not lines:
        raise UsageError(f"{file} names no images: nothing follows its first line")

    def place(row: int) -> str:
        return f"{file}, line {lines[row]}"

    where = f"csv file {file.absolute()} (paths are relative to its folder)"
    sides = table_sides(columns, split, str(file), place)
    return _table_images(columns, sides, place, file.stem, where, file.parent)


def frame_images(frame: Any, *, split: str) -> LabelledImages:
    """Return the images of a DataFrame, as :func:`read_table` does; paths are relative to the current folder."""
    names = list(frame.columns)
    words = [str(name).strip().lower() for name in names]
    _expect_columns(words, "the DataFrame", "it must have the columns")
    columns = {word: list(frame[name]) for word, name in zip(words, names, strict=True) if word in _KNOWN}
    rows = list(getattr(frame, "index", range(len(columns["path"]))))
    if not rows:
        raise UsageError("the DataFrame names no images: it has no rows")

    def place(row: int) -> str:
        return f"row {rows[row]} of the DataFrame"

    sides = table_sides(columns, split, "the DataFrame", place)
    return _table_images(columns, sides, place, "DataFrame", "the DataFrame", Path())


def listed_images(images: Any, labels: Any, roles: Any | None, *, split: str) -> LabelledImages:
    """Return a list of paths, PIL images or arrays with their labels and roles, if given, as a dataset.

    Raises UsageError for lists of different lengths or with other contents.
    """
    listed = entries(images, "images")
    marks = entries(labels, "labels")
    sides = None if roles is None else entries(roles, "roles")
    for name, values in (("labels", marks), ("roles", sides)):
        if values is not None and len(values) != len(listed):
            raise UsageError(f"{len(listed)} images but {len(values)} {name}: one is needed for each image")

    def place(index: int) -> str:
        return f"image {index} of the list"

    names = class_names(marks, place)
    chosen = [role_of(role, place(index)) for index, role in enumerate(sides)] if sides and split == "auto" else None
    return LabelledImages("images", "the list of images", source_of(listed), names, chosen, notes=notes_on(names))


def entries(values: Any, name: str) -> list[Any]:
    """Return the entries of a list, array, tensor, Series or iterator, by position. Raises UsageError."""
    by_number = hasattr(values, "__getitem__") and hasattr(values, "__len__")  # as torch's datasets have
    no_list = isinstance(values, str | bytes | Mapping | Set) or hasattr(values, "columns")
    if no_list or getattr(values, "ndim", 1) == 0 or not (hasattr(values, "__iter__") or by_number):
        raise UsageError(f"{name} is a {type(values).__name__}: a list with one entry for each image is needed")
    if hasattr(values, "detach") and values.ndim == 1:
        return list(values.tolist())  # many times faster than a tensor for each
    # By position: the numbers of a Series are its index.
    return list(values) if hasattr(values, "__iter__") else [values[index] for index in range(len(values))]


def _columns_of(file: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Return the known columns of a csv file, and the line on which each row begins. Raises UsageError."""
    text = _text_of(file)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] = []
    found: dict[int, list[str]] = {}
    lines: list[int] = []
    line = 1
    try:
        for row in rows:
            begin, line = line, rows.line_num + 1
            if not row:
                continue
            if not header:
                header = [name.strip().lower() for name in row]
                _expect_columns(header, f"{file}, line {begin}", "the first line must name the columns")
                found = {place: [] for place, name in enumerate(header) if name in _KNOWN}
                continue
            if len(row) != len(header):
                fields = f"{counted(len(row), 'field')} for {counted(len(header), 'column')}"
                hint = (
                    ': put a field that contains a comma in quotes ("salt, pepper")' if len(row) > len(header) else ""
                )
                raise UsageError(f"{file}, line {begin}: {fields} ({','.join(header)}){hint}")
            for place, values in found.items():
                value = row[place].strip()
                if "\n" in value or "\r" in value:
                    raise UsageError(
                        f"{file}, line {begin}: column {header[place]!r} continues to line {rows.line_num}: "
                        "is a quote not closed?"
                    )
                values.append(value)
            lines.append(begin)
    except csv.Error as error:
        raise UsageError(f"{file}, line {line}: not readable as csv ({error}): is a quote not closed?") from error
    _expect_columns(header, f"{file}, line 1", "the first line must name the columns")
    return {header[place]: values for place, values in found.items()}, lines


def _text_of(file: Path) -> str:
    """Return the text of a file. Raises UsageError."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].decode(error.encoding, "replace").count("\n")
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise UsageError(f"{file}, line {line}: {byte} is not {encoding.upper()}: save the file as UTF-8") from error
    if "\0" in text:
        line = 1 + text[: text.index("\0")].count("\n")
        raise UsageError(f"{file}, line {line}: a NUL byte is not valid text: save the file as UTF-8")
    return text


def _expect_columns(columns: Sequence[str], where: str, wanted: str) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        has = ",".join(columns)
        hint = "; separate the columns by commas" if len(columns) == 1 and (";" in has or "\t" in has) else ""
        raise UsageError(f"{where}: no column {missing[0]!r}; {wanted} {_WANTED}, it is {has!r}{hint}")
    twice = [name for name in _KNOWN if columns.count(name) > 1]
    if twice:
        raise UsageError(f"{where}: two columns {twice[0]!r}: rename one of them")


def _table_images(
    columns: Mapping[str, Sequence[Any]], sides: Sides, place: Callable[[int], str], name: str, where: str, root: Path
) -> LabelledImages:
    """Return the images of the rows in ``sides``, with paths below ``root``; ``place(row)`` names a row in messages."""
    paths, labels = ([columns[column][row] for row in sides.rows] for column in _NEEDED)
    for column, values in (("path", paths), ("label", labels)):
        empty = next((row for row, value in zip(sides.rows, values, strict=True) if is_missing(value)), None)
        if empty is not None:
            raise UsageError(f"{place(empty)}: column {column!r} is empty")
    names = class_names(labels, lambda index: place(sides.rows[index]))
    files = tuple(str(path).strip() for path in paths)
    _expect_some(files, root, where)
    notes = (*sides.notes, *notes_on(names))
    return LabelledImages(name, where, FileSource(files, str(root)), names, sides.roles, notes=notes)


def _expect_some(paths: Sequence[str], root: Path, where: str) -> None:
    """Raise UsageError if no image exists: then the folder is wrong."""
    if not paths or any(map(os.path.exists, (root / path for path in paths))):
        return
    first = f"the first path is {(root / paths[0]).absolute()}"
    here = "; it exists relative to the current folder: move the csv there, or use absolute paths"
    hint = here if root.absolute() != Path.cwd() and any(map(os.path.exists, paths)) else ""
    raise UsageError(f"none of the {len(paths)} images of {where} exists: {first}{hint}")
