"""The cap on the pixel stores of a cache folder: the least recently used go for one that is to be made."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import filelock

from embedcore.images import pixel_store


def make_room(folder: Path, needed: int, limit: int) -> bool:
    """Remove the least recently used stores of a folder until so many more bytes fit below the limit; whether they do.

    What a process uses stays, and nothing goes where all of it would not be enough.
    """
    stores = {path: size for path in folder.glob("*.npy") if (size := _size(path))}
    total = sum(stores.values())
    if needed > limit:
        return False
    for path in sorted(stores, key=_used):
        if total + needed <= limit:
            break
        if _removed(path):
            total -= stores[path]
    return total + needed <= limit


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # another process has removed it
        return 0


def _used(path: Path) -> float:
    for file in (pixel_store.sidecar_of(path), path):
        with contextlib.suppress(OSError):
            return os.stat(file).st_mtime  # noqa: PTH116
    return 0.0


def _removed(path: Path) -> bool:
    """Whether a store could be removed. Its sidecar goes first: without one what is left is not read."""
    try:
        with filelock.FileLock(f"{path}.lock", timeout=0):
            if pixel_store.is_held(path):
                return False
            pixel_store.sidecar_of(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    except (filelock.Timeout, OSError):
        return False
    return True
