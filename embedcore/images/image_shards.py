"""Shards: Parquet, Arrow or tar files with many images each, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from embedcore.errors import UsageError
from embedcore.images.arrow_tables import read_tables
from embedcore.images.folders import has_images
from embedcore.images.retries import retried
from embedcore.images.sources import LabelledImages, Role
from embedcore.images.splits import SPLITS, Sides, sides_of_parts, table_sides
from embedcore.images.tables import rows_images
from embedcore.images.tar_shards import read_tars

TABLES = (".parquet", ".arrow")
"""Suffixes of files that are datasets by themselves. A single tar file is an archive."""
_SUFFIXES = (*TABLES, ".tar")
_FOLDERS = {"data", *SPLITS}
"""Folders of a dataset that may contain shards."""
_NUMBERED = re.compile(r"(.*-)(\d{5})(-of-)(\d{5})(.*)", re.DOTALL)


def shards_of(path: Path) -> list[str]:
    """Return the shards of a dataset relative to its folder, in order; none if it has images of its own.

    ``path``: a folder, or a single Parquet or Arrow file.
    """
    if path.suffix.lower() in TABLES and path.is_file():
        return [path.name]
    found: list[str] = []
    with suppress(OSError):  # reported when the images are listed
        found = retried(lambda: chosen_shards(_files(path)))
    return [] if found and has_images(path) else found


def chosen_shards(names: Iterable[str]) -> list[str]:
    """Return the shards among the files of a dataset, in order: in its folder, in ``data`` or in folders of splits."""
    return sorted(name for name in names if _is_shard(PurePosixPath(name)))


def _is_shard(name: PurePosixPath) -> bool:
    *folders, file = name.parts
    known = len(folders) < 2 and {folder.lower() for folder in folders} <= _FOLDERS
    return known and name.suffix.lower() in _SUFFIXES and not file.startswith((".", "cache-"))  # caches of datasets.map


def _files(root: Path, inside: str = "") -> Iterator[str]:
    """Yield the files that may be shards in a folder and in folders of parts. Raises OSError."""
    with os.scandir(root / inside) as entries:
        for entry in entries:
            if entry.name.lower().endswith(_SUFFIXES) and entry.is_file():
                yield inside + entry.name
            elif not inside and entry.name.lower() in _FOLDERS and entry.is_dir():
                yield from _files(root, f"{entry.name}/")


def shard_images(
    root: str, names: Sequence[str], title: str, *, split: str, chosen: Mapping[str, str], cache: Path | None
) -> LabelledImages:
    """Return the images of shards, in the order of ``names`` and of the images in each.

    ``root``: the folder, or an address on the hub. ``title``: the dataset's name. Shards are parts of the dataset by a
    word of their name or folder, such as train and test; ``split`` decides as for folders (:func:`scan_folder`).
    Without such words ``split`` decides as for tables (:func:`table_sides`).

    Raises UsageError for shards of different kinds, numbered ones that are missing, and those that cannot be read.
    """
    where = f"{root}: {len(names)} shards" if len(names) > 1 else f"{root}/{names[0]}"
    kinds = sorted({PurePosixPath(name).suffix.lower() for name in names})
    if len(kinds) > 1:
        raise UsageError(f"{where} are of the kinds {' and '.join(kinds)}: keep one")
    _expect_all(names, root)
    parts = {name: _part_of(name) for name in names}
    words = list(dict.fromkeys(parts.values()))
    sides: Mapping[str, Role] = {}
    notes: tuple[str, ...] = ()
    if len(words) > 1 and "" not in words:

        def missing(word: str) -> str:
            return f"no shard of {word.strip()!r} in {root}, only of {', '.join(words)}"

        sides, notes = sides_of_parts(words, split, f"{root} has shards of", missing)
    used = [name for name in names if not sides or parts[name] in sides]
    found = read_tars(root, used, chosen, cache) if kinds == [".tar"] else read_tables(root, used, chosen)
    if not len(found.source):
        raise UsageError(f"{where} contains no images")
    if sides:
        roles = [sides[parts[name]] for name, count in zip(used, found.counts, strict=True) for _ in range(count)]
        rows = Sides(range(len(roles)), roles)
    else:
        rows = table_sides({"path": found.source.items, **found.columns.values}, split, where, found.source.name)
    images = rows_images(found.columns, rows, found.source.name, title, where, found.source.select(rows.rows))
    return replace(images, notes=(*notes, *found.notes, *images.notes))


def _expect_all(names: Sequence[str], root: str) -> None:
    """Raise UsageError if some of the shards NAME-00000-of-00004 and so on are missing."""
    numbers: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for name in names:
        if parts := _NUMBERED.fullmatch(name):
            numbers[parts[1], parts[3], parts[4], parts[5]].add(int(parts[2]))
    for (begin, of, total, end), present in numbers.items():
        absent = sorted({*range(int(total))} - present)
        if absent:
            raise UsageError(f"{root}: {len(present)} of {int(total)} shards, no {begin}{absent[0]:05}{of}{total}{end}")


def _part_of(name: str) -> str:
    """Return the part of the dataset that a shard belongs to, in lower case; "" if its name has no such word.

    >>> [_part_of(name) for name in ("data/train-00000-of-00002.parquet", "test/data-0.arrow", "shop-val.tar", "x.tar")]
    ['train', 'test', 'val', '']
    """
    *folders, file = name.lower().split("/")
    words = (*folders, *re.split(r"[-_.]", file))
    return next((word for word in words if word in SPLITS), "")
