"""Images in columns of Parquet and Arrow files, decoded a row group at a time. Needs pyarrow, the extra ``arrow``."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from embedcore.errors import UsageError, option
from embedcore.images.columns import NAMES, Columns, find_columns
from embedcore.images.decode import DAMAGE
from embedcore.images.labels import titled
from embedcore.images.ledger import stamp_of
from embedcore.images.sources import ImageSource, ShardedImages
from embedcore.plain import one_line

HUB = "hf://"
"""Prefix of addresses of files on the Hugging Face hub."""

_KEPT_BYTES = 2**27  # of decoded row groups; the last two are kept in any case
_WANTED = "the columns image and label are needed"


class Group(NamedTuple):
    """A row group: the rows of a file that are decoded together."""

    first: int
    """Its first row, counted over all files."""
    file: int
    number: int
    """Its number in the file."""
    before: int
    """Rows of the file before it."""


@dataclass(frozen=True)
class ArrowSource(ImageSource):
    """Rows of Parquet or Arrow files; items are row numbers over all files."""

    root: str
    """A folder, or an address on the hub."""
    files: tuple[str, ...]
    """Relative to the root."""
    groups: tuple[Group, ...]
    """In order."""
    column: str

    def _group(self, index: int) -> Group:
        return self.groups[bisect_right(self.groups, self.items[index], key=lambda group: group.first) - 1]

    def name(self, index: int) -> str:
        group = self._group(index)
        return f"{self.files[group.file]}#{self.items[index] - group.first + group.before}"

    def place(self, index: int) -> tuple[Path, str] | None:
        if self.root.startswith(HUB):
            return None
        file, _, row = self.name(index).rpartition("#")
        return Path(self.root, file), f"{self.column}#{row}"

    def content(self, index: int) -> bytes:
        group = self._group(index)
        cells = _cells(f"{self.root}/{self.files[group.file]}", group.number, self.column)
        cell = cells[self.items[index] - group.first].as_py()
        content = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if content is None:
            raise ValueError("the image is missing")
        return bytes(content)


def read_tables(root: str, names: Sequence[str], chosen: Mapping[str, str]) -> ShardedImages:
    """Return the images of Parquet or Arrow files, in the order of the names and rows.

    The image is a binary column, or a struct with the field bytes. Numbers of a ``ClassLabel`` of Hugging Face become
    the names of its classes.

    Raises UsageError without pyarrow, and for a file that cannot be read, lacks a column, or whose columns have other
    types than those of the first file.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"{root}/{names[0]} needs pyarrow: pip install 'embedcore[arrow]'")
    groups: list[Group] = []
    counts: list[int] = []
    values: dict[str, list[Any]] = {}
    first: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(names):
        where = f"{root}/{name}"
        with _one_line_errors(where):
            file = _opened(where, _stamp(where))
        used = _used_columns(file.schema, chosen, where)
        layout = {kind: (column, *_type_of(file.schema, column)) for kind, column in used.items()}
        first = first or layout
        if layout != first:
            kind = next(kind for kind in {**first, **layout} if layout.get(kind) != first.get(kind))
            this, other = (", ".join(each.get(kind, ("no such column",))[:5]) for each in (layout, first))
            raise UsageError(
                f"{where}: its {kind} ({this}) is not that of {names[0]} ({other}): keep files of one schema"
            )
        with _one_line_errors(where):
            starts = [0, *accumulate(file.counts)]
            rows = file.values([column for kind, column in used.items() if kind != "path"])
        groups += [Group(sum(counts) + start, number, each, start) for each, start in enumerate(starts[:-1])]
        counts.append(starts[-1])
        for kind, column in used.items():
            if kind != "path":
                values.setdefault(kind, []).extend(titled(rows[column], layout[kind][2:]))
    source = ArrowSource(range(sum(counts)), root, tuple(names), tuple(groups), used["path"])
    return ShardedImages(source, counts, Columns(values, used))


def _used_columns(schema: Any, chosen: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the name of each column that is used, by kind. Raises UsageError."""
    images = [field.name for field in schema if _holds_images(field.type)]
    known = [name for name in images if name.strip().lower() in NAMES["path"]]
    found = [chosen["path"]] if "path" in chosen else [name for name in known if name == "image"] or known or images
    if len(found) != 1 or found[0] not in images:
        if len(found) > 1:
            choice = f"choose a column, such as {option('columns', f'image={found[0]}')}"
            raise UsageError(f"{where}: {found[0]!r} or {found[1]!r} may be the image: {choice}")
        wrong = f"column {found[0]!r} has no images" if found else "no column of images"
        raise UsageError(
            f"{where}: {wrong} (binary, or a struct with bytes); its columns are {', '.join(schema.names[:10])}"
        )
    places = find_columns(schema.names, {**chosen, "path": found[0]}, where, _WANTED, first="image")
    return {kind: schema.names[place] for kind, place in places.items()}


def _holds_images(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_images(kind.field(place).type)
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _type_of(schema: Any, column: str) -> tuple[str, ...]:
    """Return the type of a column, and the names of its classes if it is a ``ClassLabel`` of Hugging Face."""
    names: list[str] = []
    with contextlib.suppress(ValueError, LookupError, TypeError):
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"] or []
    return str(schema.field(column).type), *names


def _stamp(where: str) -> Any:
    return None if where.startswith(HUB) else stamp_of(Path(where))


@contextlib.contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:  # pyarrow's errors are subclasses of these
        raise UsageError(f"{where} cannot be read: {one_line(str(error))[:200]}") from error


class _File:
    """An open Parquet file, or Arrow file of either format."""

    def __init__(self, where: str) -> None:
        from pyarrow import ipc, memory_map, parquet

        self._parquet: Any = None
        self._batches: list[Any] = []
        if where.lower().endswith(".parquet"):
            self._parquet = parquet.ParquetFile(_stream(where), pre_buffer=False)
            metadata = self._parquet.metadata
            self.schema = self._parquet.schema_arrow
            self.counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            return
        try:
            reader = ipc.open_file(memory_map(where))
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except ValueError:  # the format of streams, as Hugging Face's datasets write it
            reader = ipc.open_stream(memory_map(where))
            self._batches = list(reader)
        self.schema = reader.schema
        self.counts = [batch.num_rows for batch in self._batches]

    def values(self, columns: Sequence[str]) -> dict[str, list[Any]]:
        """Return the values of all rows of some columns."""
        from pyarrow import Table

        if self._parquet is None:
            table = Table.from_batches(self._batches, self.schema).select(list(columns))
        else:
            table = self._parquet.read(columns=list(columns))
        return {name: table.column(name).to_pylist() for name in columns}

    def cells(self, number: int, column: str) -> Any:
        """Return a column of a row group, as pyarrow's array."""
        if self._parquet is None:
            return self._batches[number].column(column)
        return self._parquet.read_row_group(number, columns=[column], use_threads=False).column(column)


def _stream(where: str) -> Any:
    if not where.startswith(HUB):
        return where
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(where, "rb")


@functools.lru_cache(maxsize=8)
def _opened(where: str, stamp: Any) -> _File:
    """Return a file, opened again if its stamp has changed."""
    return _File(where)


_lock = threading.Lock()
_groups: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


def _cells(where: str, number: int, column: str) -> Any:
    """Return the images of a row group, which are kept for its other rows."""
    stamp = _stamp(where)
    with _lock:
        key = where, stamp, number, column
        if key not in _groups:
            _groups[key] = _opened(where, stamp).cells(number, column)
            while len(_groups) > 2 and sum(cells.nbytes for cells in _groups.values()) > _KEPT_BYTES:
                _groups.popitem(last=False)
        _groups.move_to_end(key)
        return _groups[key]
