"""Size limit of a cache folder's pixel stores: the least recently used are removed to make room for a new one."""

from __future__ import annotations

import contextlib
from pathlib import Path

from embedcore.files import PARTIAL
from embedcore.images.store_files import bytes_on_disk, remove_unused, sidecar_of


def make_room(folder: Path, needed: int, limit: int) -> bool:
    """Remove stores of a folder until ``needed`` more bytes fit below the limit; return whether they do.

    Unfinished files of killed processes are removed first, then the least recently used. Stores that a process uses or
    is building stay. Nothing is removed if ``needed`` alone exceeds the limit.
    """
    found = (path for pattern in ("*.npy", f"*.npy.*{PARTIAL}") for path in folder.glob(pattern))
    stores = {path: size for path in found if (size := _size(path))}
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
        return bytes_on_disk(path, path.lstat())
    except OSError:  # removed by another process
        return 0


def _used(path: Path) -> float:
    if path.name.endswith(PARTIAL):
        return 0.0
    for file in (sidecar_of(path), path):
        with contextlib.suppress(OSError):
            return file.stat().st_mtime
    return 0.0


def _removed(path: Path) -> bool:
    """Remove a store or an unfinished one; return whether that was possible. A store is locked while it is built."""
    store = path.with_name(f"{path.name.partition('.npy')[0]}.npy")
    # The sidecar first: pixels without a sidecar are not read.
    files = [sidecar_of(path), path] if path == store else [path]
    return not remove_unused(files, [Path(f"{store}.lock")])
