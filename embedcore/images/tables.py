"""Datasets from a csv file or a DataFrame ``path,label[,role][,split]``, or from lists."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError, option
from embedcore.images.columns import NEEDED, Columns, find_columns
from embedcore.images.labels import class_names, is_missing, notes_on
from embedcore.images.sources import FileSource, ImageSource, LabelledImages, Role, source_of
from embedcore.images.splits import SPLITS, Sides, sides_of_parts, table_sides
from embedcore.plain import counted

_WANTED = "path,label[,role][,split]"
_CHOICE = f"choose the splits to use, such as {option('split', 'train:val')}"
METADATA = "metadata.csv"
"""A table in a folder of images or in each of its splits, as Hugging Face's ``imagefolder`` reads it."""

_ENCODINGS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
"""Byte order marks and their encodings; a file without one is UTF-8."""


def read_table(
    file: Path, *, split: str, chosen: Mapping[str, str] | None = None, needed: Sequence[str] = NEEDED
) -> LabelledImages:
    """Return the images of a csv file, in the order of its lines; paths are relative to the file's folder.

    The first line names the columns, of which ``chosen`` may name the used ones: see :func:`find_columns`. See
    :func:`table_sides` for ``role`` and ``split``. The encoding is UTF-8, or that of a byte order mark. The audit
    checks later whether the images can be read. If no label is ``needed``, the images of a file without a column of
    labels are classless.

    Raises UsageError with a line number for bytes of another encoding, an unclosed quote, more or fewer fields than
    columns, missing or ambiguous columns, an empty field, or a label that is not a class.
    """
    columns, lines = _columns_of(file, chosen or {}, needed)
    if not lines:
        raise UsageError(f"{file} names no images: nothing follows its first line")

    def place(row: int) -> str:
        return f"{file}, line {lines[row]}"

    name = file.absolute().parent.name if file.name == METADATA else file.stem
    where = f"csv file {file.absolute()} (paths are relative to its folder)"
    if classless := "label" not in columns.values:
        columns = Columns({"path": columns.values["path"], "label": ["."] * len(lines)}, columns.names)
    sides = table_sides(columns.values, split, str(file), place)
    return replace(table_images(columns, sides, place, name, where, file.parent), classless=classless)


def tables_of_splits(root: Path) -> dict[str, Path]:
    """Return the tables in the splits of a folder, such as ``train`` and ``test``, by the split's name."""
    return {file.parent.name: file for file in sorted(root.glob(f"*/{METADATA}")) if file.parent.name.lower() in SPLITS}


def read_split_tables(
    root: Path, tables: Mapping[str, Path], *, split: str, chosen: Mapping[str, str]
) -> LabelledImages:
    """Return the images of a folder whose splits have a table each; paths are relative to the split's folder.

    ``split`` decides as for splits with class folders: see :func:`scan_folder`. Raises UsageError as :func:`read_table`
    does, and for a split without a table.
    """
    sides, notes = _sides_of_splits(root, tables, split)
    paths: list[str] = []
    labels: list[str] = []
    places: list[tuple[str, int]] = []
    used = [name for name in tables if not sides or name in sides]
    for name in used:
        columns, lines = _columns_of(tables[name], chosen)
        paths += [str(Path(name, path)) if path else path for path in columns.values["path"]]
        labels += columns.values["label"]
        places += [(name, line) for line in lines]

    def place(row: int) -> str:
        name, line = places[row]
        return f"{tables[name]}, line {line}"

    where = f"{METADATA} in {', '.join(used)} of folder {root.absolute()}"
    if not paths:
        raise UsageError(f"{where} names no images")
    roles = [sides[name] for name, _ in places] if sides else None
    table = Columns({"path": paths, "label": labels}, columns.names)
    return table_images(table, Sides(range(len(paths)), roles, notes), place, root.resolve().name, where, root)


def _sides_of_splits(root: Path, tables: Mapping[str, Path], split: str) -> tuple[Mapping[str, Role], tuple[str, ...]]:
    """Return the role of each split that is used, none for leave-one-out over all; and notes. Raises UsageError."""

    def missing(name: str) -> str:
        return f"no {METADATA} in {root.absolute() / name.strip(' /')}"

    if ":" not in split:
        folders = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and folder.name.lower() in SPLITS)
        bare = next((folder for folder in folders if folder not in tables), None)
        if bare is not None:
            raise UsageError(f"no {METADATA} in {root.absolute() / bare}: add one, or {_CHOICE}")
    return sides_of_parts([*tables], split, f"{root.absolute()} has {METADATA} in", missing, "/")


def frame_images(frame: Any, *, split: str, chosen: Mapping[str, str]) -> LabelledImages:
    """Return the images of a DataFrame, as :func:`read_table` does; paths are relative to the current folder."""
    names = list(frame.columns)
    found = find_columns(names, chosen, "the DataFrame", f"it must have the columns {_WANTED}")
    values = {kind: list(frame[names[position]]) for kind, position in found.items()}
    columns = Columns(values, {kind: str(names[position]) for kind, position in found.items()})
    rows = list(getattr(frame, "index", range(len(values["path"]))))
    if not rows:
        raise UsageError("the DataFrame names no images: it has no rows")

    def place(row: int) -> str:
        return f"row {rows[row]} of the DataFrame"

    sides = table_sides(values, split, "the DataFrame", place)
    return table_images(columns, sides, place, "DataFrame", "the DataFrame", Path())


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
    found = table_sides({"path": listed, **({"role": sides} if sides else {})}, split, "the list of images", place)
    notes = (*found.notes, *notes_on(names))
    return LabelledImages("images", "the list of images", source_of(listed), names, found.roles, notes=notes)


def entries(values: Any, name: str) -> list[Any]:
    """Return the entries of a list, array, tensor, Series or iterator, by position. Raises UsageError."""
    by_number = hasattr(values, "__getitem__") and hasattr(values, "__len__")  # as torch's datasets have
    no_list = isinstance(values, str | bytes | Mapping | Set) or hasattr(values, "columns")
    if no_list or getattr(values, "ndim", 1) == 0 or not (hasattr(values, "__iter__") or by_number):
        raise UsageError(f"{name} is a {type(values).__name__}: a list with one entry for each image is needed")
    if hasattr(values, "detach") and values.ndim == 1:
        return list(values.tolist())  # many times faster than a tensor for each
    # Iterated if possible: series[0] is the row with label 0, not the first row.
    return list(values) if hasattr(values, "__iter__") else [values[index] for index in range(len(values))]


def _columns_of(file: Path, chosen: Mapping[str, str], needed: Sequence[str] = NEEDED) -> tuple[Columns, list[int]]:
    """Return the used columns of a csv file, and the line on which each row begins. Raises UsageError."""
    text = _text_of(file)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    wanted = "the first line must name the column" + (f"s {_WANTED}" if "label" in needed else " path")
    header: list[str] = []
    found: dict[str, int] = {}
    lines: list[int] = []
    line = 1
    values: dict[str, list[str]] = {}
    try:
        for row in rows:
            begin, line = line, rows.line_num + 1
            if not row:
                continue
            if not header:
                header = [name.strip() for name in row]
                found = find_columns(header, chosen, f"{file}, line {begin}", wanted, needed=needed)
                values = {kind: [] for kind in found}
                continue
            if len(row) != len(header):
                fields = f"{counted(len(row), 'field')} for {counted(len(header), 'column')}"
                hint = (
                    ': put a field that contains a comma in quotes ("salt, pepper")' if len(row) > len(header) else ""
                )
                raise UsageError(f"{file}, line {begin}: {fields} ({','.join(header)}){hint}")
            for kind, position in found.items():
                value = row[position].strip()
                if "\n" in value or "\r" in value:
                    raise UsageError(
                        f"{file}, line {begin}: column {header[position]!r} continues to line {rows.line_num}: "
                        "is a quote not closed?"
                    )
                values[kind].append(value)
            lines.append(begin)
    except csv.Error as error:
        raise UsageError(f"{file}, line {line}: not readable as csv ({error}): is a quote not closed?") from error
    if not header:
        find_columns(header, chosen, f"{file}, line 1", wanted, needed=needed)
    return Columns(values, {kind: header[position] for kind, position in found.items()}), lines


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


def table_images(
    columns: Columns, sides: Sides, place: Callable[[int], str], name: str, where: str, root: Path
) -> LabelledImages:
    """Return the images of the rows in ``sides``, with paths below ``root``; ``place(row)`` names a row in messages."""
    paths = used_values(columns, "path", sides, place)
    files = tuple(str(path).strip() for path in paths)
    found = rows_images(columns, sides, place, name, where, FileSource(files, str(root)))
    _expect_some(files, root, where)
    return found


def rows_images(
    columns: Columns, sides: Sides, place: Callable[[int], str], name: str, where: str, source: ImageSource
) -> LabelledImages:
    """Return the images of a source, one for each row in ``sides``, with labels and roles of the table."""
    labels = used_values(columns, "label", sides, place)
    names = class_names(labels, lambda index: place(sides.rows[index]))
    return LabelledImages(name, where, source, names, sides.roles, notes=(*sides.notes, *notes_on(names)))


def used_values(columns: Columns, kind: str, sides: Sides, place: Callable[[int], str]) -> list[Any]:
    """Return the values of the rows in ``sides``. Raises UsageError if one is missing."""
    values = [columns.values[kind][row] for row in sides.rows]
    empty = next((row for row, value in zip(sides.rows, values, strict=True) if is_missing(value)), None)
    if empty is not None:
        raise UsageError(f"{place(empty)}: column {columns.names[kind]!r} is empty")
    return values


def _expect_some(paths: Sequence[str], root: Path, where: str) -> None:
    """Raise UsageError if no image exists: then the folder is wrong."""
    if not paths or any(map(os.path.exists, (root / path for path in paths))):
        return
    first = f"the first path is {(root / paths[0]).absolute()}"
    here = "; it exists relative to the current folder: move the csv there, or use absolute paths"
    hint = here if root.absolute() != Path.cwd() and any(map(os.path.exists, paths)) else ""
    raise UsageError(f"none of the {len(paths)} images of {where} exists: {first}{hint}")
