"""What the cache folder holds, as things that are kept and removed as a whole.

Only what embedcore itself has written is found: regular files of names that it gives, in the folders that it makes.
Links are passed over, so that nothing outside the cache folder is listed or removed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from embedcore.embed.kept import FOLDER as EMBEDDINGS
from embedcore.errors import UsageError
from embedcore.files import unsealed
from embedcore.images import ledger, store_file
from embedcore.plain import one_line
from embedcore.results.journal import read_journals

KINDS = {
    "pixels": "Pixel stores",
    "embeddings": "Kept embeddings",
    "journal": "Journals of runs",
    "audit": "What is known of image files",
}

RUNS = "runs"  # folder of the journals, within the cache folder

_STORE = re.compile(r"([0-9a-f]{16}-.+-[0-9a-f]{8})\.(?:npy|json|(?:npy|json)\..*partial)")
_EMBEDDINGS = re.compile(r"([0-9a-f]{32})\.(?:npy|json|(?:npy|json)\..+\.partial)")
_JOURNAL = re.compile(r"(\d{8}T\d{6,12}-\d+)(?:\.\w+)?\.jsonl")
_AUDIT = re.compile(rf"({re.escape(ledger.FILE)})(?:-journal)?")

_Stat = tuple[Path, os.stat_result]


@dataclass(frozen=True)
class Entry:
    """Files that belong together."""

    kind: str
    name: str
    columns: Mapping[str, str]
    """What a table says of it."""
    files: tuple[Path, ...]
    """In the order in which they are removed."""
    bytes: int
    used: float
    """When it was last used, in seconds since the epoch."""
    locks: tuple[Path, ...] = ()
    """The files of the locks that its writers hold."""

    @property
    def can_be_made_anew(self) -> bool:
        return self.kind in ("pixels", "embeddings")


def entries_of(folder: Path) -> list[Entry]:
    """Everything of ours in a cache folder."""
    return [
        *(_store(name, files) for name, files in _groups(folder / store_file.FOLDER, _STORE)),
        *(_embeddings(name, files) for name, files in _groups(folder / EMBEDDINGS, _EMBEDDINGS)),
        *(_run(name, files) for name, files in _groups(folder / RUNS, _JOURNAL)),
        *(_audit(files) for _, files in _groups(folder, _AUDIT)),
    ]


def remove(entry: Entry) -> str:
    """Remove an entry's files; gives what stood in the way, empty if nothing did.

    The empty file of the lock stays: another process may be waiting for it.
    """
    try:
        with contextlib.ExitStack() as locked:
            for lock in entry.locks:
                locked.enter_context(filelock.FileLock(lock, timeout=0))
            return _unlink(entry.files)
    except filelock.Timeout:
        return "in use by a running process"
    except OSError as error:
        return error.strerror or str(error)


def _unlink(files: Sequence[Path]) -> str:
    there = [file for file in files if file.exists()]
    if any(store_file.is_held(file) for file in there):
        return "in use by a running process"
    for file in there:
        file.unlink(missing_ok=True)
    return ""


def _groups(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, list[_Stat]]]:
    """The regular files in a folder whose whole name matches, grouped by the pattern's first group, sorted."""
    groups: dict[str, list[_Stat]] = defaultdict(list)
    if folder.is_symlink() and pattern is not _AUDIT:  # the cache folder itself may be a link: the user has named it
        return
    try:
        with os.scandir(folder) as found:
            for item in found:
                match = pattern.fullmatch(item.name)
                if match and item.is_file(follow_symlinks=False):
                    groups[match[1]].append((Path(item.path), item.stat(follow_symlinks=False)))
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from sorted((name, sorted(files)) for name, files in groups.items())


def _store(name: str, files: list[_Stat]) -> Entry:
    sidecar = _sidecar(files)
    shape = sidecar.get("shape")
    pixels = files[0][0].with_name(f"{name}.npy")
    whole = {pixels, store_file.sidecar_of(pixels)} <= {path for path, _ in files}
    columns = {
        "images": f"{shape[0]:,}" if isinstance(shape, list) and shape and isinstance(shape[0], int) else "",
        "dataset": _text(sidecar.get("dataset")) if whole else "(unfinished)",
        "geometry": _text(sidecar.get("geometry")) or name[17:-9],
    }
    return _entry("pixels", f"{columns['dataset']} {columns['geometry']}", columns, files, pixels)


def _embeddings(name: str, files: list[_Stat]) -> Entry:
    sidecar = _sidecar(files)
    facts = sidecar.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    shape = sidecar.get("shape")
    columns = {
        "embeddings": " x ".join(map(str, shape)) if isinstance(shape, list) else "",
        "model": _text(facts.get("model")) or "(unfinished)",
        "precision": _text(facts.get("precision")),
    }
    return _entry("embeddings", f"{columns['model']} {name[:8]}", columns, files)


def _run(name: str, files: list[_Stat]) -> Entry:
    """The journals of one run: one for each process that has measured."""
    columns = {"results": "0", "run": name, "dataset": "", "state": "unreadable"}
    try:
        run = read_journals(path for path, _ in files if b"\n" in path.read_bytes())  # else nothing was written yet
        dataset = run.header.get("dataset")
        columns["results"] = str(len({(result.model, result.dataset) for result in run.results}))
        columns["dataset"] = _text(dataset.get("name")) if isinstance(dataset, dict) else ""
        if run.header:
            columns["state"] = "finished" if run.finished else "unfinished"
    except (UsageError, OSError):
        pass
    return _entry("journal", name, columns, files, *(path for path, _ in files))


def _audit(files: list[_Stat]) -> Entry:
    file = files[0][0]
    return _entry("audit", file.name, {"file": file.name}, files, file)


def _entry(kind: str, name: str, columns: Mapping[str, str], files: list[_Stat], *written: Path) -> Entry:
    """``written``: the files that a writer holds the lock of."""
    # Sidecars first: without its sidecar what is left is not read, should a removal be cut short.
    ordered = sorted((path for path, _ in files), key=lambda path: (path.suffix != ".json", path.name))
    return Entry(
        kind=kind,
        name=one_line(name),
        columns={key: one_line(text) for key, text in columns.items()},  # sidecars may say anything
        files=tuple(ordered),
        bytes=sum(status.st_size for _, status in files),
        used=max(status.st_mtime for _, status in files),
        locks=tuple(Path(f"{path}.lock") for path in written),
    )


def _sidecar(files: list[_Stat]) -> dict[str, Any]:
    """What the sidecar among the files says; empty where it is missing or damaged."""
    for path, _ in files:
        if path.suffix == ".json":
            with contextlib.suppress(OSError, ValueError):
                return unsealed(path.read_bytes())
    return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
