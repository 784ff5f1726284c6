"""``embedcore cache``: what the cache folder holds, and making room in it."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import tabulate

from embedcore.commands.cache_entries import KINDS, Entry, entries_of, remove
from embedcore.errors import UsageError
from embedcore.plain import bytes_text, one_line

_DAY_S = 86_400.0
_LINE = 80  # characters
_CUT = "dataset"  # the column whose text is cut
_NARROWEST = 10


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``cache list`` and ``cache prune``."""
    parser = commands.add_parser("cache", help="list or prune pixel stores, kept embeddings and journals")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what the cache folder holds")
    listing.set_defaults(run=run_list)
    pruning = actions.add_parser(
        "prune",
        help="remove what is old or too much",
        description="Remove pixel stores, kept embeddings and journals of runs. What a running process uses stays.",
    )
    pruning.add_argument("--older-than", type=_number, metavar="DAYS", help="what was last used more than DAYS ago")
    pruning.add_argument(
        "--max-size",
        type=_number,
        metavar="GB",
        help="then pixel stores and embeddings, least recently used first, until GB (10^9 bytes) are left; "
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
    for kind, title in KINDS.items():
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
