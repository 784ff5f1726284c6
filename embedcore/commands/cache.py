"""``embedcore cache``: list and prune the files of the cache folder.

Only files of embedcore are found: regular files and unpacked archives with its names, in its folders. Links are
ignored, so nothing outside the cache folder is listed or removed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tabulate

from embedcore.embed.engines import names as engines
from embedcore.embed.engines.names import FACTS
from embedcore.embed.kept import FOLDER as EMBEDDINGS
from embedcore.errors import UsageError
from embedcore.files import PARTIAL, cache_folder, unsealed
from embedcore.images import archives, ledger, pixel_store
from embedcore.images.store_files import bytes_on_disk, remove_unused, sidecar_of
from embedcore.images.unfinished_store import left_over
from embedcore.plain import bytes_text, counted, one_line
from embedcore.results import neighbours, run_index
from embedcore.results.journal import read_header
from embedcore.results.runs import FOLDER as JOURNALS
from embedcore.results.runs import outline

_DAY_S = 86_400.0
_NAME = 60  # characters of a name in the list


@dataclass(frozen=True)
class Entry:
    """Files that are listed and removed together."""

    kind: str
    name: str
    files: tuple[Path, ...]
    """The files, in the order in which they are removed."""
    bytes: int
    used: float
    """Time of the last use, in seconds since the epoch."""
    locks: tuple[Path, ...] = ()
    """Lock files of the processes that write the files."""

    @property
    def can_be_recreated(self) -> bool:
        return self.kind in ("pixels", "embeddings", "neighbours", *_FOLDERS)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("cache", help="list or prune pixel stores, exported models, embeddings and journals")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list the contents of the cache folder")
    listing.set_defaults(run=run_list)
    pruning = actions.add_parser(
        "prune",
        help="remove old files or limit the size",
        description="Remove pixel stores, unpacked archives, models exported for engines, kept embeddings, neighbours "
        "and journals of runs. Files that a running process uses stay.",
    )
    pruning.add_argument("--older-than", type=_number, metavar="DAYS", help="remove files that were not used for DAYS")
    pruning.add_argument(
        "--max-size", type=_number, metavar="GB",
        help="remove pixel stores, archives, models of engines, embeddings and neighbours, least recently used first, "
        "until the cache has at most GB (10^9 bytes); journals stay, since they cannot be computed again",
    )  # fmt: skip
    pruning.add_argument("--all", action="store_true", help="remove everything, journals too")
    pruning.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    pruning.set_defaults(run=run_prune)
    for action in (listing, pruning):
        action.add_argument("--cache", type=Path, metavar="DIR", help="the cache folder (default: the user's)")


def run_list(arguments: argparse.Namespace) -> int:
    """Print a table of the cache's entries, grouped by kind, most recently used first."""
    folder = _existing(arguments.cache)
    entries = entries_of(folder)
    print(one_line(str(folder)))
    if not entries:
        print("the cache is empty")
        return 0
    now = time.time()
    rows = [
        (entry.kind, entry.name[:_NAME], bytes_text(entry.bytes), _age(now - entry.used))
        for entry in sorted(entries, key=lambda entry: ([*_KINDS, *_FOLDERS].index(entry.kind), -entry.used))
    ]
    align = ("left", "left", "right", "right")
    headers = ("kind", "name", "size", "last used")
    print(tabulate.tabulate(rows, headers=headers, tablefmt="plain", colalign=align, disable_numparse=True))
    print(f"total {bytes_text(sum(entry.bytes for entry in entries))}")
    return 0


def run_prune(arguments: argparse.Namespace) -> int:
    """Remove entries; print those removed and those kept because they are in use."""
    if not arguments.all and arguments.older_than is None and arguments.max_size is None:
        raise UsageError("cache prune: choose what to remove: --older-than DAYS, --max-size GB or --all")
    entries = entries_of(_existing(arguments.cache))
    now = time.time()
    chosen = choose_to_remove(
        entries,
        now,
        everything=arguments.all,
        older_than_s=None if arguments.older_than is None else arguments.older_than * _DAY_S,
        max_bytes=None if arguments.max_size is None else arguments.max_size * 1e9,
    )
    freed = removed = 0
    for entry in chosen:
        text = f"{entry.kind} {entry.name} ({bytes_text(entry.bytes)}, last used {_age(now - entry.used)})"
        obstacle = "" if arguments.dry_run else remove_unused(entry.files, entry.locks)
        if obstacle:
            print(f"kept: {text}: {obstacle}")
            continue
        print(f"{'would remove' if arguments.dry_run else 'removed'}: {text}")
        removed += 1
        freed += entry.bytes
    print(f"{removed} {'would be ' if arguments.dry_run else ''}removed, {bytes_text(freed)}")
    return 0


def choose_to_remove(
    entries: Sequence[Entry],
    now: float,
    *,
    everything: bool = False,
    older_than_s: float | None = None,
    max_bytes: float | None = None,
) -> list[Entry]:
    """Return the entries to remove, least recently used first."""
    chosen: list[Entry] = []
    left = sum(entry.bytes for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.used):
        old = older_than_s is not None and now - entry.used > older_than_s
        if everything or old or (max_bytes is not None and left > max_bytes and entry.can_be_recreated):
            chosen.append(entry)
            left -= entry.bytes
    return chosen


def _existing(option: Path | None) -> Path:
    folder = cache_folder(option)
    if option is not None and not folder.is_dir():
        raise UsageError(f"no such cache folder: {folder.absolute()}")
    return folder


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def _age(seconds: float) -> str:
    for unit, factor in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit} ago"
    return "just now" if seconds < 60 else "a minute ago"


def entries_of(folder: Path) -> list[Entry]:
    """Return all entries of a cache folder."""
    entries = [entry for kind in _FOLDERS for entry in _in_folders(folder, kind)]
    journals = _groups(folder, "journal")
    for kind, (_, _, describe) in _KINDS.items():
        for name, files in _groups(folder, kind).items():
            paths = [*files]
            locked = {
                "pixels": [paths[0].with_name(f"{name}.npy")],
                "journal": paths,
                "neighbours": [*journals.get(name, ())],  # written under the locks of the run's journals
                "audit": [folder / ledger.FILE],
            }
            entries.append(
                Entry(
                    kind=kind,
                    name=one_line(describe(name, paths)),  # sidecars may contain anything
                    files=tuple(paths),
                    bytes=sum(bytes_on_disk(path, status) for path, status in files.items()),
                    used=max(status.st_mtime for status in files.values()),
                    locks=tuple(Path(f"{path}.lock") for path in locked.get(kind, ())),
                )
            )
    return entries


def _in_folders(cache: Path, kind: str) -> Iterator[Entry]:
    """Yield the entries of a kind that has a folder for each."""
    place, pattern = _FOLDERS[kind]
    folder = cache / place
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, path.name)
        if match and path.is_dir() and not path.is_symlink():
            size = sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
            lock = path.with_name(f"{path.name.removesuffix(PARTIAL)}.lock")
            locks = (lock,) if kind == "archive" else ()  # models are renamed when they are complete
            name = f"{_describe_model(path)}{match[1] or path.name}"
            yield Entry(kind, one_line(name), (path,), size, path.stat().st_mtime, locks)


def _describe_model(path: Path) -> str:
    """Return the model and engine of an exported model, "" for other folders."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts = json.loads((path / FACTS).read_bytes())
        return f"{facts['model']} {facts['engine']} {facts['precision']} " if isinstance(facts, dict) else ""
    return ""


def _groups(cache: Path, kind: str) -> dict[str, dict[Path, os.stat_result]]:
    """Return the regular files of a kind, grouped by the first group of its pattern, sorted."""
    place, pattern, _ = _KINDS[kind]
    folder = cache / place
    groups: dict[str, dict[Path, os.stat_result]] = defaultdict(dict)
    if folder.is_symlink() and folder != cache:  # the user may name a link as the cache folder
        return {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        # Sidecars first: should a removal be interrupted, files without a sidecar are not read.
        for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".json", path)):
            match = re.fullmatch(pattern, path.name)
            if match and stat.S_ISREG((status := path.lstat()).st_mode):
                groups[match[1]][path] = status
    return dict(sorted(groups.items()))


def _sidecar(files: Sequence[Path]) -> dict[str, Any]:
    """Return the content of the sidecar among ``files``; empty if it is missing or damaged."""
    if files[0].suffix == ".json":
        with contextlib.suppress(OSError, ValueError):
            return unsealed(files[0].read_bytes())
    return {}


def _describe_store(name: str, files: Sequence[Path]) -> str:
    sidecar, pixels = _sidecar(files), files[0].with_name(f"{name}.npy")
    if {pixels, sidecar_of(pixels)} <= {*files}:
        state = str(sidecar.get("dataset", ""))
    else:
        state = "(unfinished)"
        with contextlib.suppress(OSError):
            if left := next(filter(None, map(left_over, files)), None):
                state = f"(unfinished: {left.noted_share():.0%})"
    return f"{state} {sidecar.get('geometry', name[17:-9])}"


def _describe_embeddings(name: str, files: Sequence[Path]) -> str:
    facts = _sidecar(files).get("facts")
    known = facts if isinstance(facts, dict) else {}
    return f"{known.get('model', '(unfinished)')} {known.get('precision', '')} {name[:8]}"


def _describe_run(name: str, files: Sequence[Path]) -> str:
    """Describe the journals of one run, one for each process that has measured."""
    with contextlib.suppress(UsageError, OSError):
        headers = {path: header for path in files if (header := read_header(path)) is not None}
        if headers:  # else nothing was written yet
            found, (dataset, *_) = outline(headers), next(iter(headers.values())).get("datasets") or [None]
            of = f" of {dataset.get('name', '')}" if isinstance(dataset, dict) else ""
            return f"{name} {'finished' if found.finished else 'unfinished'}: {counted(found.cases, 'result')}{of}"
    return f"{name} unreadable"


def _describe_neighbours(name: str, files: Sequence[Path]) -> str:
    return f"{name}: {counted(len(files), 'model')}"


# For each kind: its folder in the cache folder, and a pattern of the folders in it, whose first group is shown.
_FOLDERS = {
    "archive": (archives.FOLDER, r"[0-9a-f]{16}-(.+)"),
    "engine": (engines.FOLDER, r"([0-9a-f]{8})[0-9a-f]{24}(?:\..*)?|inductor"),
}

_ARRAY = r"\.(?:npy|json)(?:\..*partial)?"  # an array, its sidecar, and unfinished ones

_RUN = r"\d{8}T\d{6,12}-\d+"

# For each kind: its folder in the cache folder, a pattern of file names, and a function that describes the files with
# the same first group.
_KINDS: dict[str, tuple[str, str, Callable[[str, Sequence[Path]], str]]] = {
    "pixels": (pixel_store.FOLDER, rf"([0-9a-f]{{16}}-.+-[0-9a-f]{{8}}){_ARRAY}", _describe_store),
    "embeddings": (EMBEDDINGS, rf"([0-9a-f]{{32}}){_ARRAY}", _describe_embeddings),
    "journal": (JOURNALS, rf"({_RUN})(?:\.\w+)?\.jsonl", _describe_run),
    "neighbours": (neighbours.FOLDER, rf"({_RUN})\.[0-9a-f]{{32}}\.npz(?:\..*partial)?", _describe_neighbours),
    "index": (JOURNALS, rf"({re.escape(run_index.FILE)})", lambda name, files: name),
    "audit": ("", rf"({re.escape(ledger.FILE)})(?:-journal)?", lambda name, files: name),
}
