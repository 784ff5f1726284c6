"""Datasets by specification: a named set, a folder, a table, a list or a dataset object."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError, whole_number
from embedcore.files import user_path
from embedcore.images import emoji
from embedcore.images.folders import scan_folder
from embedcore.images.sources import LabelledImages, choose
from embedcore.images.tables import frame_images, listed_images, read_table
from embedcore.images.timm_sets import SCHEMES, pairs_images, timm_images

SPLITS = ("auto", "loo")
"""The other splits are REFERENCES:QUERIES, two folders of a dataset or two values of a table's column ``split``."""
_CSV = "csv:"
_KINDS = f"a dataset is emoji, objects, a folder, csv:FILE or one of timm's {' '.join(f'{name}/…' for name in SCHEMES)}"


def chosen_images(
    images: Any,
    labels: Any,
    roles: Any = None,
    split: str = "auto",
    max_classes: int | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
) -> tuple[LabelledImages, list[int]]:
    """Return all images of the dataset ``images``, and the indices of those in the subset.

    The arguments are those of ``embedcore.load_dataset``. Raises UsageError for an invalid dataset, split or limit.
    """
    _check_split(images, split)
    for option, value in (("max_classes", max_classes), ("max_per_class", max_per_class)):
        if value is not None:
            whole_number(value, option, 0)
    kind = type(images).__name__
    named = isinstance(images, str | os.PathLike)
    if labels is not None and not named:
        found = listed_images(images, labels, roles, split=split)
    elif labels is not None or roles is not None:
        raise UsageError("labels and roles belong to a list of images: load_dataset(images, labels, roles=roles)")
    elif isinstance(images, str):
        found = _named(images, split)
    elif named:
        found = scan_folder(user_path(os.fspath(images)), split=split)
    elif _is_frame(images):
        found = frame_images(images, split=split)
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, list | tuple | dict):
        found = pairs_images(images, kind, kind, f"the {kind}", portable=False)
    else:
        raise UsageError(
            f"a {kind} without labels is not a dataset: use load_dataset(images, labels), or as_dataset to embed only"
        )
    if max_classes is None:
        max_classes = emoji.DEFAULT_CLASSES if isinstance(images, str) and images == "emoji" else 0
    return found, choose(found, max_classes=max_classes, max_per_class=max_per_class or 0, seed=seed)


def _check_split(images: Any, split: Any) -> None:
    """Raise UsageError for an invalid split, and for REFERENCES:QUERIES without a folder or a table."""
    two = [side for side in split.split(":") if side.strip()] if isinstance(split, str) else ()
    if split not in SPLITS and len(two) != 2:
        example = "REFERENCES:QUERIES, two folders such as train:val"
        raise UsageError(f"unknown split {split!r}: one of {', '.join(SPLITS)}, or {example}")
    if split in SPLITS or _is_frame(images):
        return
    named = isinstance(images, str | os.PathLike)
    if not named or not (str(images).startswith(_CSV) or _is_folder(user_path(os.fspath(images)))):
        what = f"{str(images)!r} is" if named else f"a {type(images).__name__} is"
        raise UsageError(
            f"split {split!r} names two folders of the dataset, or two values of a column 'split', and {what} neither "
            "a folder nor a table"
        )


def _is_folder(path: Path) -> bool:
    """Raises UsageError for a folder that cannot be accessed."""
    try:
        return path.is_dir()
    except OSError as error:
        raise UsageError(f"no such folder of images: {str(path)[:200]}: {error.strerror}") from error


def _is_frame(images: Any) -> bool:
    return hasattr(images, "columns") and hasattr(images, "to_dict")


def check_exists(spec: str) -> None:
    """Raise UsageError for a dataset whose folder or file does not exist, without reading it."""
    scheme = re.match(r"[a-z]{2,}(?=[:/])", spec)
    if spec in emoji.NAMES or (scheme and scheme[0] in SCHEMES and spec[scheme.end()] == "/"):
        return
    if not spec:
        raise UsageError(f"the name of the dataset is empty: {_KINDS}")
    if spec.startswith(_CSV):
        file = user_path(spec.removeprefix(_CSV))
        if not file.is_file():
            raise UsageError(f"no such csv file: {file.absolute()}")
        return
    folder = user_path(spec)
    if _is_folder(folder):
        return
    if scheme and spec[scheme.end()] == ":":
        raise UsageError(f"unknown dataset scheme {scheme[0]!r} in {spec!r}: {_KINDS}")
    if folder.exists():
        raise UsageError(f"{folder.absolute()} is a file, not a folder of images: {_KINDS}")
    raise UsageError(f"no such folder of images: {folder.absolute()}; {_KINDS}")


def _named(spec: str, split: str) -> LabelledImages:
    check_exists(spec)
    if spec in emoji.NAMES:
        return emoji.emoji_images(spec, split=split)
    if spec.startswith(_CSV):
        return read_table(user_path(spec.removeprefix(_CSV)), split=split)
    return scan_folder(user_path(spec), split=split) if _is_folder(user_path(spec)) else timm_images(spec)
