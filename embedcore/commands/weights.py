"""Where the weights of models are, and filling a folder with them for a machine without network.

    embedcore weights list -k vit_tiny

on a connected machine:
    embedcore weights fetch --family vit --to /mnt/stick/weights

on the other one:
    pytest benchmarks --embed-weights /mnt/stick/weights --embed-roster local
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.plain import bytes_text, one_line, wrapped

if TYPE_CHECKING:
    from embedcore.zoo.mirror import Fetched, Holding
    from embedcore.zoo.roster import Roster

ASKING = 8  # requests to the hub at a time
NAMED = 3  # models named for one reason


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``weights list`` and ``weights fetch``."""
    parser = commands.add_parser(
        "weights",
        help="list where weights are, or fetch them into a folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="list|fetch")
    selection = argparse.ArgumentParser(add_help=False)
    selection.add_argument(
        "--roster", metavar="ROSTER", help="all, local, article, tags or globs, or a file of them (default: all)"
    )
    selection.add_argument("--family", action="append", default=[], metavar="SLUG", help="only this family; repeatable")
    selection.add_argument(
        "-k", dest="keyword", default="", metavar="WORD", help="only tags that contain this, or that this glob matches"
    )
    selection.add_argument("--weights", type=Path, metavar="DIR", help="a folder of weights that is looked into first")
    listing = actions.add_parser("list", parents=[selection], help="name the files and where they are now")
    listing.add_argument("--ask", action="store_true", help="ask the hub for sizes and for what is gated or not there")
    listing.set_defaults(run=run_list)
    fetching = actions.add_parser("fetch", parents=[selection], help="copy or download the missing files")
    fetching.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to fill")
    fetching.set_defaults(run=run_fetch)


def run_list(arguments: argparse.Namespace) -> int:
    """Print a line a model and a total; exit code 0."""
    from embedcore.zoo.hub import Hub
    from embedcore.zoo.mirror import ask_hub, find_holding, find_own

    holdings = [
        find_holding(model, arguments.weights) if own is None else find_own(own)
        for model, own in _selected(arguments).items()
    ]
    notes = []
    if arguments.ask:
        hub = Hub()
        first = next((holding.remote for holding in holdings if holding.place == "hub" and holding.remote), None)
        refused = hub.why_unreachable(first) if first else None
        if refused:
            notes.append(f"The hub was not asked: {refused}.")
        else:
            with ThreadPoolExecutor(ASKING) as pool:
                holdings = list(pool.map(partial(ask_hub, hub=hub), holdings))
    for holding in holdings:
        print(_row(holding.place, ("~" if holding.estimated else "") + bytes_text(holding.size), holding.file))
    print()
    _say(_total(holdings))
    if any(holding.estimated for holding in holdings):
        notes.append("~ reckoned from the number of parameters (--ask asks the hub).")
    for line in notes:
        _say(line)
    for line in _grouped((holding.place, holding.model, holding.note) for holding in holdings if holding.note):
        _say(line, "  ")
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Fill the folder, a line a model; exit code 1 if some weights could not be had."""
    from embedcore.measure.outcome import status_of
    from embedcore.zoo.hub import OFFLINE, Hub, is_offline
    from embedcore.zoo.mirror import open_mirror

    if not (arguments.roster or arguments.family or arguments.keyword.strip()):
        raise UsageError("weights fetch: say which with -k, --family or --roster (all of them: --roster all)")
    selected = _selected(arguments)
    models = [model for model, own in selected.items() if own is None]
    if len(models) < len(selected):
        print(f"{_models(len(selected) - len(models))} of your own left out: their weights are where the roster says.")
    if is_offline():
        _say(f"{OFFLINE}: only what is on this machine can be had.")
    hub = Hub()
    done: list[Fetched] = []
    failed: list[tuple[str, str, str]] = []
    with open_mirror(arguments.to) as mirror:
        try:
            for model in models:
                try:
                    fetched = mirror.fetch(model, source=arguments.weights, hub=hub)
                except UsageError:
                    raise
                except EmbedcoreError as error:
                    failed.append((status_of(error), model, str(error)))
                    print(_row(failed[-1][0], "", model), flush=True)
                else:
                    done.append(fetched)
                    print(_row(fetched.how, bytes_text(fetched.size), fetched.file), flush=True)
        except KeyboardInterrupt:
            print("\nInterrupted: what is whole is kept; the same command goes on from here.")
            return 130
    print()
    _say(_outcome(done, arguments.to, complete=not failed))
    if not failed:
        return 0
    print(f"{len(failed)} of {len(models)} could not be had:")
    for line in _grouped(failed):
        _say(line, "  ")
    return 1


def _selected(arguments: argparse.Namespace) -> Roster:
    """The models that are asked for, at least one."""
    from embedcore.zoo.registry import close_hint
    from embedcore.zoo.roster import read_roster

    folder = arguments.weights
    if folder is not None and not folder.is_dir():
        raise UsageError(f"weights folder {folder}: no such folder")
    roster = read_roster(arguments.roster or "all", families=arguments.family, weights=folder)
    word = arguments.keyword.strip().lower()
    pattern = word if any(sign in word for sign in "*?[") else f"*{word}*"
    models = {model: own for model, own in roster.items() if fnmatch.fnmatchcase(model.lower(), pattern)}
    if models:
        return models
    raise UsageError(f"-k {arguments.keyword!r}: in none of the {len(roster)} tags{close_hint(arguments.keyword)}")


def _row(word: str, size: str, file: str) -> str:
    """One line; on a terminal that is too narrow the name comes on a line of its own."""
    figures = f"{word:<10} {size:>8}"
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    gap = "\n  " if width and len(figures) + 2 + len(file) > width else "  "
    return f"{figures}{gap}{file}"


def _total(holdings: Sequence[Holding]) -> str:
    from embedcore.zoo.mirror import PLACES

    counts = Counter(holding.place for holding in holdings)
    listed = ", ".join(f"{counts[place]} {place}" for place in PLACES if counts[place])
    here = [holding.size or 0 for holding in holdings if holding.place in ("folder", "wheel", "cache", "own")]
    there = [holding for holding in holdings if holding.place == "hub"]
    parts = [f"{bytes_text(sum(here))} here"] if here else []
    if there:
        about = "about " if any(holding.estimated or holding.size is None for holding in there) else ""
        parts.append(f"{about}{bytes_text(sum(holding.size or 0 for holding in there))} on the hub")
    return f"{_models(len(holdings))}: {listed}; {', '.join(parts) or 'nothing to be had'}"


def _outcome(done: Sequence[Fetched], folder: Path, *, complete: bool) -> str:
    new = [fetched for fetched in done if fetched.how != "kept"]
    kept = len(done) - len(new)
    if not new:
        what = "Nothing to fetch" if complete else "Nothing was fetched"
        return f"{what}: {_models(kept)} in {folder}, unchanged." if kept else f"{what}."
    verb = f"{_models(len(new))} fetched into {folder} ({bytes_text(sum(fetched.size for fetched in new))})"
    return f"{verb}, {kept} there before." if kept else f"{verb}."


def _grouped(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """A line for each word and reason, with the models that it holds for; the same but for the model is the same."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for word, model, reason in failures:
        groups.setdefault((word, reason.replace(model, "MODEL")), []).append((model, reason))
    lines = []
    for (word, pattern), members in groups.items():
        if len(members) == 1:
            lines.append(f"{word}: {members[0][1]}")
            continue
        named = ", ".join(model for model, _ in members[:NAMED]) + (", …" if len(members) > NAMED else "")
        lines.append(f"{len(members)} {word}: {pattern.removeprefix('MODEL: ')} ({named})")
    return lines


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"


def _say(text: str, indent: str = "") -> None:
    """On one line of the terminal's width, or more; a server's words may be in it."""
    print(wrapped(indent + one_line(text), shutil.get_terminal_size().columns))
