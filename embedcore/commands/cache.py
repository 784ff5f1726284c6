"""``embedcore cache``: what the cache folder holds, and making room in it.

Only what embedcore itself has written is found: regular files of names that it gives, in the folders that it makes.
Links are passed over, so that nothing outside the cache folder is listed or removed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import stat
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import msgspec
import tabulate

from embedcore.embed.kept import FOLDER as EMBEDDINGS
from embedcore.errors import UsageError
from embedcore.files import unsealed
from embedcore.images import ledger, pixel_store
from embedcore.images.store_files import is_held, sidecar_of
from embedcore.plain import bytes_text, one_line
from embedcore.results import neighbours
from embedcore.results.books import FOLDER as JOURNALS
from embedcore.results.journal import outline, read_header

_DAY_S = 86_400.0
_LINE = 80  # characters
_CUT = "dataset"  # the column whose text is cut
_NARROWEST = 10

_IN_USE = "in use by a running process"
_Described = tuple[str, dict[str, str], Sequence[Path]]
"""Name, what a table says of it, and the files that a writer holds the lock of."""


@dataclass(frozen=True)
class Entry:
    """Files that belong together, kept and removed as a whole."""

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
        return self.kind in ("pixels", "embeddings", "neighbours")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``cache list`` and ``cache prune``."""
    parser = commands.add_parser("cache", help="list or prune pixel stores, embeddings, neighbours and journals")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what the cache folder holds")
    listing.set_defaults(run=run_list)
    pruning = actions.add_parser(
        "prune",
        help="remove what is old or too much",
        description="Remove pixel stores, kept embeddings, neighbours and journals of runs. What a running process "
        "uses stays.",
    )
    pruning.add_argument("--older-than", type=_number, metavar="DAYS", help="what was last used more than DAYS ago")
    pruning.add_argument(
        "--max-size",
        type=_number,
        metavar="GB",
        help="then pixel stores, embeddings and neighbours, least recently used first, until GB (10^9 bytes) are left; "
        "journals stay, since they cannot be made anew",
    )
    pruning.add_argument("--all", action="store_true", help="everything, journals too")
    pruning.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    pruning.set_defaults(run=run_prune)
    for action in (listing, pruning):
        action.add_argument("--cache", type=Path, metavar="DIR", help="the cache folder (default: the user's)")


def cache_folder(given: Path | None) -> Path:
    """The folder that the plugin uses too."""
    if given is not None:
        return given
    import platformdirs

    return platformdirs.user_cache_path("embedcore")


def run_list(arguments: argparse.Namespace) -> int:
    """Print one table for each kind of thing."""
    folder = _existing(arguments.cache)
    entries = entries_of(folder)
    print(one_line(str(folder)))
    if not entries:
        print("nothing is kept here")
        return 0
    now = time.time()
    for kind, (title, *_) in _KINDS.items():
        of_kind = sorted((entry for entry in entries if entry.kind == kind), key=lambda entry: -entry.used)
        if of_kind:
            print(f"\n{title}: {len(of_kind)}, {bytes_text(sum(entry.bytes for entry in of_kind))}")
            print(_table(of_kind, now))
    print(f"\ntogether {bytes_text(sum(entry.bytes for entry in entries))}")
    return 0


def run_prune(arguments: argparse.Namespace) -> int:
    """Remove what is asked for; says what it removes, and what is in use."""
    if not arguments.all and arguments.older_than is None and arguments.max_size is None:
        raise UsageError("cache prune: say what to remove: --older-than DAYS, --max-size GB or --all")
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
        what = f"{entry.kind} {entry.name} ({bytes_text(entry.bytes)}, last used {_age(now - entry.used)})"
        obstacle = "" if arguments.dry_run else remove(entry)
        if obstacle:
            print(f"left: {what}: {obstacle}")
            continue
        print(f"{'would remove' if arguments.dry_run else 'removed'}: {what}")
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
    """What a prune removes, least recently used first."""
    chosen: list[Entry] = []
    left = sum(entry.bytes for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.used):
        old = older_than_s is not None and now - entry.used > older_than_s
        if everything or old or (max_bytes is not None and left > max_bytes and entry.can_be_made_anew):
            chosen.append(entry)
            left -= entry.bytes
    return chosen


def _existing(given: Path | None) -> Path:
    folder = cache_folder(given)
    if given is not None and not folder.is_dir():
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


def _table(entries: Sequence[Entry], now: float) -> str:
    """Columns of text, the least telling of which is cut where the lines would be wider than 80."""
    keys = list(entries[0].columns)
    cells = [
        [*(entry.columns[key] for key in keys), bytes_text(entry.bytes), _age(now - entry.used)] for entry in entries
    ]
    headers = [*keys, "size", "last used"]
    widths = [max(len(row[column]) for row in [headers, *cells]) for column in range(len(headers))]
    excess = sum(widths) + 2 * (len(widths) - 1) - _LINE
    if excess > 0 and _CUT in keys:
        column = keys.index(_CUT)
        limit = max(widths[column] - excess, _NARROWEST)
        for row in cells:
            row[column] = row[column] if len(row[column]) <= limit else row[column][: limit - 3] + "..."
    align = ["right", *["left"] * (len(keys) - 1), "right", "right"] if len(keys) > 1 else ["left", "right", "right"]
    return tabulate.tabulate(cells, headers=headers, tablefmt="plain", colalign=align, disable_numparse=True)


def _age(seconds: float) -> str:
    for unit, factor in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit} ago"
    return "just now" if seconds < 60 else "a minute ago"


def entries_of(folder: Path) -> list[Entry]:
    """Everything of ours in a cache folder."""
    entries = []
    _, place, pattern, _ = _KINDS["journal"]
    journals = {run: [*files] for run, files in _groups(folder, place, pattern)}
    for kind, (_, place, pattern, describe) in _KINDS.items():
        for group, files in _groups(folder, place, pattern):
            name, columns, written = describe(group, [*files])
            if kind == "neighbours":  # which are written while the locks of their run's journals are held
                written = journals.get(group, [])
            entries.append(
                Entry(
                    kind=kind,
                    name=one_line(name),
                    columns={key: one_line(text) for key, text in columns.items()},  # sidecars may say anything
                    files=tuple(files),
                    bytes=sum(status.st_size for status in files.values()),
                    used=max(status.st_mtime for status in files.values()),
                    locks=tuple(Path(f"{path}.lock") for path in written),
                )
            )
    return entries


def remove(entry: Entry) -> str:
    """Remove an entry's files; gives what stood in the way, empty if nothing did.

    The empty file of the lock stays: another process may be waiting for it.
    """
    try:
        with contextlib.ExitStack() as locked:
            for lock in entry.locks:
                locked.enter_context(filelock.FileLock(lock, timeout=0))
            there = [file for file in entry.files if file.exists()]
            if any(is_held(file) for file in there):
                return _IN_USE
            for file in there:
                file.unlink(missing_ok=True)
    except filelock.Timeout:
        return _IN_USE
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _groups(cache: Path, place: str, pattern: str) -> list[tuple[str, dict[Path, os.stat_result]]]:
    """The regular files in a folder whose whole name matches, grouped by the pattern's first group, sorted."""
    folder = cache / place
    groups: dict[str, dict[Path, os.stat_result]] = defaultdict(dict)
    if folder.is_symlink() and folder != cache:  # the cache folder itself may be a link: the user has named it
        return []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        # Sidecars first: without its sidecar what is left is not read, should a removal be cut short.
        for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".json", path)):
            match = re.fullmatch(pattern, path.name)
            if match and stat.S_ISREG((status := path.lstat()).st_mode):
                groups[match[1]][path] = status
    return sorted(groups.items())


class _Facts(msgspec.Struct):
    model: str = ""
    precision: str = ""


class _Sidecar(msgspec.Struct):
    """What is shown of the files beside pixels and embeddings; nothing where one is missing or damaged."""

    shape: list[int] = []
    dataset: str = ""
    geometry: str = ""
    facts: _Facts = msgspec.field(default_factory=_Facts)


def _sidecar(files: Sequence[Path]) -> _Sidecar:
    if files[0].suffix == ".json":
        with contextlib.suppress(OSError, ValueError):
            return msgspec.convert(unsealed(files[0].read_bytes()), _Sidecar)
    return _Sidecar()


def _store(name: str, files: Sequence[Path]) -> _Described:
    sidecar = _sidecar(files)
    pixels = files[0].with_name(f"{name}.npy")
    columns = {
        "images": "".join(f"{images:,}" for images in sidecar.shape[:1]),
        "dataset": sidecar.dataset if {pixels, sidecar_of(pixels)} <= {*files} else "(unfinished)",
        "geometry": sidecar.geometry or name[17:-9],
    }
    return f"{columns['dataset']} {columns['geometry']}", columns, [pixels]


def _embeddings(name: str, files: Sequence[Path]) -> _Described:
    sidecar = _sidecar(files)
    columns = {
        "embeddings": " x ".join(map(str, sidecar.shape)),
        "model": sidecar.facts.model or "(unfinished)",
        "precision": sidecar.facts.precision,
    }
    return f"{columns['model']} {name[:8]}", columns, []


def _run(name: str, files: Sequence[Path]) -> _Described:
    """The journals of one run: one for each process that has measured."""
    columns = {"results": "0", "run": name, "dataset": "", "state": "unreadable"}
    with contextlib.suppress(UsageError, OSError):
        headers = {path: header for path in files if (header := read_header(path)) is not None}
        if headers:  # else nothing was written yet
            dataset, found = next(iter(headers.values())).get("dataset"), outline(headers)
            columns["results"] = str(found.results)
            columns["dataset"] = str(dataset.get("name", "")) if isinstance(dataset, dict) else ""
            columns["state"] = "finished" if found.finished else "unfinished"
    return name, columns, files


def _audit(name: str, files: Sequence[Path]) -> _Described:
    return name, {"file": name}, files[:1]


def _neighbours(name: str, files: Sequence[Path]) -> _Described:
    """Those of one run."""
    return name, {"models": str(len(files)), "run": name}, []


_ARRAY = r"\.(?:npy|json)(?:\..*partial)?"  # an array, its sidecar, and what is left of either that was not made whole

_RUN = r"\d{8}T\d{6,12}-\d+"

# Of each kind its title, folder within the cache folder, how its files are named, and what describes them.
_KINDS = {
    "pixels": ("Pixel stores", pixel_store.FOLDER, rf"([0-9a-f]{{16}}-.+-[0-9a-f]{{8}}){_ARRAY}", _store),
    "embeddings": ("Kept embeddings", EMBEDDINGS, rf"([0-9a-f]{{32}}){_ARRAY}", _embeddings),
    "journal": ("Journals of runs", JOURNALS, rf"({_RUN})(?:\.\w+)?\.jsonl", _run),
    "neighbours": ("Neighbours", neighbours.FOLDER, rf"({_RUN})\.[0-9a-f]{{32}}\.npz(?:\..*partial)?", _neighbours),
    "audit": ("What is known of image files", "", rf"({re.escape(ledger.FILE)})(?:-journal)?", _audit),
}
