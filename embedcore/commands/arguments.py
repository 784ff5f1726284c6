"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedcore.durations import parse_duration
from embedcore.errors import UsageError
from embedcore.files import STORAGE
from embedcore.plain import one_line, printable_lines, wrapped


def duration(text: str) -> float:
    """Parse a duration of the command line, in seconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add ``--fail-on`` and ``--undecided``."""
    parser.add_argument(
        "--fail-on", metavar="SPEC",
        help="limits such as acc:0.5pt,acc5:1pt,images_per_s:5%%,memory:10%%,drift:1e-3,status (the defaults; without "
        "labels view_recall and view_recall5 in place of acc and acc5). They replace all defaults: acc:1pt gates acc "
        "alone; default,acc:1pt changes one. Also FILE.toml with limits for families and models (default: "
        "embedcore-gate.toml if it exists)",
    )  # fmt: skip
    parser.add_argument(
        "--undecided", choices=("warn", "fail"), default="warn",
        help="exit code if a speed or memory with a limit cannot be judged: warn: 0; fail: 3 (default: warn)",
    )  # fmt: skip


def add_index(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--index``, with the help `text`, and ``--maps``."""
    parser.add_argument("--index", action="store_true", help=text)
    parser.add_argument(
        "--maps", type=Path, metavar="DIR", default=Path("embedcore-maps"),
        help="with --index: folder for the matrices that rotate new queries (default: %(default)s)",
    )  # fmt: skip


def add_kept(parser: argparse.ArgumentParser, default: str) -> None:
    """Add RUN with kept embeddings, ``--models`` with its `default` in words, ``--cache`` and ``--format``."""
    parser.add_argument("saved", metavar="RUN", help=f"a file, a folder of its shards, or a name in {STORAGE}")
    parser.add_argument(
        "--models", metavar="MODEL", nargs="+", default=(), help=f"names or globs of its models (default: {default})"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the --embed-cache of the run (default: the user's cache folder)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output format (default: text)")


def check_kept(path: Path, models: Sequence[tuple[str, str]]) -> None:
    """Raise UsageError if no model of the run at `path` has embeddings; `models`: each with why it has none, or ""."""
    if all(why for _, why in models):
        why = f"{models[0][0]}: {models[0][1]}" if models else "no model was measured"
        raise UsageError(
            f"{path}: {why}; measure again with --embed-keep-embeddings, or name the cache folder of the run with "
            "--cache"
        )


def width(most: int = 120) -> int:
    """Return the width of the terminal, 80 if it is not known."""
    return min(shutil.get_terminal_size((80, 24)).columns, most)


def print_wrapped(line: str, indent: str = "") -> None:
    """Print a line in the terminal's width, without unprintable characters, as of a server's message."""
    print(wrapped(indent + one_line(line), width()))


def print_notes(notes: Iterable[str]) -> None:
    """Print notes to standard error, a line each."""
    for note in notes:
        print(f"embedcore: {printable_lines(note)}", file=sys.stderr)
