"""Image folders: the class of an image is the folder that it lies in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.images.sources import ROLE_WORDS, FileSource, LabelledImages

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "avif", "bmp", "dib", "gif"),
        *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "tga", "pcx"),
    )
)


def scan_folder(root: Path, *, split: str) -> LabelledImages:
    """All images under a folder, in an order that does not depend on the file system.

    A class is named by its folder's path relative to the root ("." for images in the root itself), so that two folders
    of the same last name are two classes. With split ``auto`` and subfolders ``query`` and ``reference`` (or
    ``gallery``) these are the two sides, and classes are relative to them. Hidden files and folders are passed over,
    links are followed.

    Raises UsageError where the folder is missing, cannot be listed or holds no images.
    """
    if not root.is_dir():
        raise UsageError(f"no such folder: {root.absolute()}")
    paths = sorted(_image_paths(root), key=_order)
    if not paths:
        raise UsageError(
            f"no images under {root.absolute()}: looked for {' '.join(sorted(EXTENSIONS))} in it and its subfolders"
        )
    name, where = root.resolve().name, f"folder {root.absolute()}"
    named = [entry.name for entry in root.iterdir() if entry.name.lower() in ROLE_WORDS and entry.is_dir()]
    sides = {folder: ROLE_WORDS[folder.lower()] for folder in named} if split == "auto" else {}
    if len(set(sides.values())) < 2:
        for folder, role in sides.items():  # the other one may be called by another name
            if any(path.startswith(f"{folder}/") and path.count("/") > 1 for path in paths):  # else it is a class
                other = "reference/ or gallery/" if role == "query" else "query/"
                raise UsageError(
                    f"{root.absolute()} has classes in {folder}/ but no folder {other} beside it for the other side; "
                    "for leave-one-out over all folders give --embed-split loo"
                )
        return LabelledImages(name, where, FileSource(tuple(paths), str(root)), [_parent(path) for path in paths])
    everywhere = len(paths)
    paths = [path for path in paths if path.partition("/")[0] in sides]
    outside, side_names = everywhere - len(paths), "/ and ".join(sorted(sides, key=str.lower))
    return LabelledImages(
        name=name,
        where=where,
        source=FileSource(tuple(paths), str(root)),
        class_names=[_parent(path.partition("/")[2]) for path in paths],
        roles=[sides[path.partition("/")[0]] for path in paths],
        notes=(f"{outside} images outside {side_names}/ were left out",) if outside else (),
    )


def _image_paths(root: Path) -> Iterator[str]:
    """Paths relative to the root; each folder on the way down once, so that a link to a parent ends the walk."""
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while stack:
        prefix, parents = stack.pop()
        folder = Path(root, prefix)
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in parents:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        stack.append((f"{prefix}{entry.name}/", (*parents, here)))
                    elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122 (a name, many times)
                        yield prefix + entry.name
        except OSError as error:
            raise UsageError(f"cannot list folder {folder.absolute()}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: the audit names it if it is called like an image
        return False


def _order(path: str) -> tuple[bytes, ...]:
    return tuple(os.fsencode(part) for part in path.split("/"))


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "."
