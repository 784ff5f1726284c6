"""Embeddings of any number, read in blocks from arrays, ``.npy`` files and tables with a column of lists."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.embed.npy import read_npy
from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.plain import one_line

FORMATS = {".npy": "", ".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc"}
"""Suffix of a file of embeddings → pyarrow's name of its format, "" for numpy's."""

_COLUMNS = ("embedding", "embeddings", "vector")
"""Names of the column to read, if several have lists of floats."""


def embedding_files(path: Path) -> list[Path]:
    """Return a file of embeddings itself, or those directly in a folder, by name; [] if there are none."""
    found = [path] if path.is_file() else path.iterdir() if path.is_dir() else []
    return sorted(file for file in found if file.suffix in FORMATS and not file.name.startswith("."))


def read_blocks(source: Any, rows: int) -> Iterator[Any]:
    """Yield arrays [b, d] of at most ``rows`` rows; the next block of a file is read meanwhile.

    ``source``: an array [n, d], which may be memory-mapped; a ``.npy``, ``.parquet``, ``.arrow`` or ``.feather`` file;
    a folder of them, in the order of their names; or an iterable of arrays. Blocks of files are copies, so that no more
    than two are in memory. Raises UsageError for files that cannot be read.
    """
    if isinstance(source, str | Path):
        files = embedding_files(user_path(source))
        if not files:
            raise UsageError(f"{source}: no file of embeddings ({', '.join(FORMATS)}) is there")
        yield from _ahead(block for file in files for block in _file_blocks(file, rows))
        return
    for array in [source] if getattr(source, "ndim", 0) == 2 else source:
        yield from (array[start : start + rows] for start in range(0, len(array), rows))


def _ahead(blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield the blocks, each read while the one before is in use."""
    remaining = iter(blocks)
    with ThreadPoolExecutor(1, thread_name_prefix="embedcore-blocks") as reader:
        reading = reader.submit(next, remaining, None)
        while (block := reading.result()) is not None:
            reading = reader.submit(next, remaining, None)
            yield block


def _file_blocks(file: Path, rows: int) -> Iterator[NDArray[Any]]:
    if FORMATS[file.suffix]:
        yield from _table_blocks(file, rows)
        return
    for start in range(0, len(_mapped(file)), rows):
        yield np.array(_mapped(file)[start : start + rows])  # a new map each time, or its pages would stay in memory


def _mapped(file: Path) -> NDArray[Any]:
    try:
        return np.atleast_1d(read_npy(file, "r"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


def _table_blocks(file: Path, rows: int) -> Iterator[NDArray[Any]]:
    try:
        pyarrow, dataset = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.dataset"))
    except ImportError as error:
        raise UsageError(f"{file} needs pyarrow, which is not installed: pip install 'embedcore[arrow]'") from error
    options: dict[str, Any] = {"batch_size": rows, "batch_readahead": 1, "fragment_readahead": 1}
    if FORMATS[file.suffix] == "parquet":  # else whole row groups would be in memory
        scan = dataset.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
        options["fragment_scan_options"] = scan
    try:
        table = dataset.dataset(str(file), format=FORMATS[file.suffix])
        for batch in table.to_batches(columns=[_column(pyarrow, table.schema, file)], **options):
            yield _rows(pyarrow, batch.column(0), file)
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{file} cannot be read: {one_line(str(error))[:150]}") from error


def _column(pyarrow: Any, schema: Any, file: Path) -> str:
    """Return the name of the column of embeddings. Raises UsageError."""
    kinds = pyarrow.types
    lists = [
        field.name
        for field in schema
        if (kinds.is_list(field.type) or kinds.is_large_list(field.type) or kinds.is_fixed_size_list(field.type))
        and kinds.is_floating(field.type.value_type)
    ]
    named = [name for name in lists if name in _COLUMNS] if len(lists) > 1 else lists
    if len(named) != 1:
        found = f"columns {', '.join(lists)} have" if lists else "no column has"
        raise UsageError(f"{file}: {found} lists of floats: keep one, or name one {_COLUMNS[0]!r}")
    return str(named[0])


def _rows(pyarrow: Any, column: Any, file: Path) -> NDArray[Any]:
    """Return a column of lists as an array [b, d]. Raises UsageError."""
    compute = importlib.import_module("pyarrow.compute")
    widths = compute.unique(compute.list_value_length(column)).to_pylist()
    values = column.flatten()
    if len(widths) > 1 or column.null_count or values.null_count:
        raise UsageError(f"{file}: the lists of its column of embeddings differ in length, or some are missing")
    rows: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return rows
