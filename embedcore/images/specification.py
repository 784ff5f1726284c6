"""Datasets by specification: a named set, a folder, a table, a list or a dataset object."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError, option, whole_number
from embedcore.files import cache_folder, user_path
from embedcore.images import emoji, hub_sets, tables
from embedcore.images.archives import is_archive, stem_of, unpacked
from embedcore.images.columns import chosen_columns, parse_columns
from embedcore.images.folders import has_classes, scan_folder
from embedcore.images.image_shards import TABLES, shard_images, shards_of
from embedcore.images.records import dict_images, hub_images, is_hub_dataset
from embedcore.images.sources import LabelledImages, choose
from embedcore.images.timm_sets import SCHEMES, timm_images

SPLITS = ("auto", "loo")
"""The other splits are REFERENCES:QUERIES, two folders of a dataset or two values of a table's column ``split``."""
CSV = "csv:"
_KINDS = (
    "a dataset is emoji, objects, a folder, a zip or tar file of one, csv:FILE, hf://datasets/NAME or one of timm's "
    f"{' '.join(f'{name}/…' for name in SCHEMES)}"
)


def chosen_images(
    images: Any,
    labels: Any,
    roles: Any = None,
    split: str = "auto",
    columns: Mapping[str, str] | str | None = None,
    max_classes: int | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    unlabelled: bool = False,
) -> tuple[LabelledImages, list[int]]:
    """Return all images of the dataset ``images``, and the indices of those in the subset.

    The arguments are those of ``embedcore.load_dataset``; archives are unpacked in ``cache_dir``. Labels that an
    ``unlabelled`` set has choose the subset and are then dropped. Raises UsageError for an invalid dataset, split
    or limit.
    """
    if unlabelled:
        if split != "auto":
            without = option("unlabelled", True)
            raise UsageError(f"{option('split', split)} divides labelled images: leave it out with {without}")
        split = "loo"
    _check_split(images, split)
    for name, value in (("max_classes", max_classes), ("max_per_class", max_per_class)):
        if value is not None:
            whole_number(value, name, 0)
    kind = type(images).__name__
    named = isinstance(images, str | os.PathLike)
    columns_of = chosen_columns(columns)
    if labels is not None and not named:
        _expect_no_columns(columns_of, f"a {kind} with labels")
        found = tables.listed_images(images, labels, roles, split=split)
    elif labels is not None or roles is not None:
        raise UsageError("labels and roles belong to a list of images: load_dataset(images, labels, roles=roles)")
    elif unlabelled and named and (alone := _without_labels(os.fspath(images), columns_of, cache_dir)) is not None:
        found = alone
    elif isinstance(images, str):
        found = _named(images, split, columns_of, cache_dir)
    elif named:
        found = _path_images(user_path(os.fspath(images)), split, columns_of, cache_dir)
    elif is_frame(images):
        found = tables.frame_images(images, split=split, chosen=columns_of)
    elif is_hub_dataset(images):
        found = hub_images(images, split=split, chosen=columns_of)
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, list | tuple | dict):
        found = dict_images(images, chosen=columns_of)
    else:
        raise UsageError(
            f"a {kind} without labels is not a dataset: use load_dataset(images, labels), or as_dataset to embed only"
        )
    if max_classes is None:
        max_classes = emoji.DEFAULT_CLASSES if isinstance(images, str) and images == "emoji" else 0
    kept = choose(found, max_classes=max_classes, max_per_class=max_per_class or 0, seed=seed)
    if unlabelled:
        found = replace(found, class_names=["."] * len(found.source), roles=None, classless=True)
    return found, kept


def _without_labels(spec: str, columns: Mapping[str, str], cache: Path | None) -> LabelledImages | None:
    """Return the images of a folder and its subfolders, an archive of one, or a table that may lack labels; None for
    another dataset. Raises UsageError."""
    if spec.startswith(CSV):
        return csv_images(spec, "loo", columns)
    if spec in emoji.NAMES or not _is_path(user_path(spec)):
        return None
    _expect_no_columns(columns, f"a folder with {option('unlabelled', True)}")
    return _path_images(user_path(spec), "loo", columns, cache, labelled=False)


def _check_split(images: Any, split: Any) -> None:
    """Raise UsageError for an invalid split, and for REFERENCES:QUERIES without a folder or a table."""
    two = [side for side in split.split(":") if side.strip()] if isinstance(split, str) else ()
    if split not in SPLITS and len(two) != 2:
        example = "REFERENCES:QUERIES, two folders such as train:val"
        raise UsageError(f"unknown split {split!r}: one of {', '.join(SPLITS)}, or {example}")
    if split in SPLITS or is_frame(images) or is_hub_dataset(images):
        return
    named = isinstance(images, str | os.PathLike)
    if not named or not (str(images).startswith((CSV, hub_sets.PREFIX)) or _is_path(user_path(os.fspath(images)))):
        what = f"{str(images)!r} is" if named else f"a {type(images).__name__} is"
        raise UsageError(
            f"split {split!r} names two folders of the dataset, or two values of a column 'split', and {what} neither "
            "a folder nor a table"
        )


def _is_path(path: Path) -> bool:
    """Return whether this is a folder, an archive of one, or a table. Raises UsageError if it cannot be accessed."""
    try:
        return path.is_dir() or is_archive(path) or (path.suffix.lower() in TABLES and path.is_file())
    except OSError as error:
        raise UsageError(f"no such folder of images: {str(path)[:200]}: {error.strerror}") from error


def is_frame(images: Any) -> bool:
    """Return whether this is a DataFrame."""
    return hasattr(images, "columns") and hasattr(images, "to_dict")


def check_exists(spec: str) -> None:
    """Raise UsageError for a dataset whose folder or file does not exist, without reading it."""
    scheme = re.match(r"[a-z]{2,}(?=[:/])", spec)
    if spec in emoji.NAMES or (scheme and scheme[0] in SCHEMES and spec[scheme.end()] == "/"):
        return
    if not spec:
        raise UsageError(f"the name of the dataset is empty: {_KINDS}")
    if spec.startswith(CSV):
        file, _ = _table_of(spec)
        if not os.path.isfile(file):  # noqa: PTH113 (Path.is_file raises for a file that cannot be accessed)
            raise UsageError(f"no such csv file: {file.absolute()}")
        return
    if spec.startswith(hub_sets.PREFIX):
        hub_sets.hub_set(spec)
        return
    folder = user_path(spec)
    if _is_path(folder):
        return
    if scheme and spec[scheme.end()] == ":":
        raise UsageError(f"unknown dataset scheme {scheme[0]!r} in {spec!r}: {_KINDS}")
    if folder.exists():
        raise UsageError(f"{folder.absolute()} is a file, not a folder of images: {_KINDS}")
    raise UsageError(f"no such folder of images: {folder.absolute()}; {_KINDS}")


def _named(spec: str, split: str, columns: Mapping[str, str], cache: Path | None) -> LabelledImages:
    check_exists(spec)
    if spec.startswith(CSV):
        file, named = _table_of(spec)
        return tables.read_table(file, split=split, chosen={**columns, **named})
    if spec not in emoji.NAMES and _is_path(user_path(spec)):
        return _path_images(user_path(spec), split, columns, cache)
    if spec.startswith(hub_sets.PREFIX):
        return _hub_images(hub_sets.hub_set(spec), split, columns, cache)
    _expect_no_columns(columns, spec)
    return emoji.emoji_images(spec, split=split) if spec in emoji.NAMES else timm_images(spec)


def csv_images(spec: str, split: str, columns: Mapping[str, str]) -> LabelledImages:
    """Return the images of ``csv:FILE``, classless if it has no column of labels. Raises UsageError."""
    check_exists(spec)
    file, named = _table_of(spec)
    return tables.read_table(file, split=split, chosen={**columns, **named}, needed=("path",))


def _table_of(spec: str) -> tuple[Path, dict[str, str]]:
    """Return the file of ``csv:FILE`` or ``csv:FILE?path=image&label=class``, and the columns that it names."""
    text = spec.removeprefix(CSV)
    file, mark, named = text.rpartition("?")
    if not mark or os.path.isfile(user_path(text)):  # noqa: PTH113
        return user_path(text), {}
    try:
        return user_path(file), parse_columns(named, "&")
    except ValueError as error:
        raise UsageError(f"{spec}: after the ?, {error}") from error


def _path_images(
    path: Path, split: str, columns: Mapping[str, str], cache: Path | None, *, labelled: bool = True
) -> LabelledImages:
    """Return the images of a folder, or of an archive of one, which is unpacked in the cache folder."""
    if shards := shards_of(path):
        single = path.is_file()
        root, title = (path.parent, path.stem) if single else (path, path.resolve().name)
        return shard_images(str(root.absolute()), shards, title, split=split, chosen=columns, cache=cache)
    root = unpacked(path, cache_folder(cache)) if is_archive(path) else path
    found = _folder_images(root, split, columns) if labelled else scan_folder(root, split=split, labelled=False)
    return found if root is path else replace(found, name=stem_of(path), where=f"archive {path.absolute()}")


def _hub_images(wanted: hub_sets.HubSet, split: str, columns: Mapping[str, str], cache: Path | None) -> LabelledImages:
    """Return the images of a dataset on the hub, from its local copy if there is one."""
    folder = hub_sets.local_copy(wanted)
    if folder is not None:
        return replace(_path_images(folder, split, columns, cache), name=wanted.repo)
    root, shards = hub_sets.remote_shards(wanted)
    return shard_images(root, shards, wanted.repo, split=split, chosen=columns, cache=cache)


def _folder_images(root: Path, split: str, columns: Mapping[str, str]) -> LabelledImages:
    """Return the images of a folder: of its class folders, else of ``metadata.csv`` in it or in each of its splits."""
    table, of_splits = root / tables.METADATA, tables.tables_of_splits(root)
    if (table.is_file() or of_splits) and (columns or not has_classes(root)):
        if table.is_file() and of_splits:
            both = f"{tables.METADATA} and {next(iter(of_splits))}/{tables.METADATA}"
            raise UsageError(f"{root.absolute()} has {both}: keep one for all images, or one for each split")
        if of_splits:
            found = tables.read_split_tables(root, of_splits, split=split, chosen=columns)
        else:
            found = tables.read_table(table, split=split, chosen=columns)
        return replace(found, notes=(f"classes are those of {tables.METADATA}", *found.notes))
    _expect_no_columns(columns, f"a folder without {tables.METADATA}")
    found = scan_folder(root, split=split)
    if not (table.is_file() or of_splits):
        return found
    use = f"csv:{table} uses it" if table.is_file() else f"{option('columns', 'label=NAME')} uses it"
    return replace(found, notes=(f"{tables.METADATA} is ignored, since there are class folders ({use})", *found.notes))


def _expect_no_columns(columns: Mapping[str, str], what: str) -> None:
    if columns:
        raise UsageError(f"{option('columns')} names columns of a table or keys of a dataset; {what} has none")
