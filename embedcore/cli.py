"""The command ``embedcore``."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from embedcore.errors import EmbedcoreError
from embedcore.files import user_path
from embedcore.plain import ENCODABLE, printable_lines
from embedcore.version import VERSION

COMMANDS = (
    *("ab", "accept", "cache", "check", "compare", "deploy", "families", "history"),
    *("index", "init", "merge", "plan", "pool", "rank", "regret", "report", "squeeze", "weights"),
)

EXIT_USAGE = 4
EXIT_UNUSABLE = 2
WITH_EXIT_UNUSABLE = (
    *("ab", "accept", "compare", "history", "index", "init", "merge"),
    *("pool", "rank", "regret", "report", "squeeze"),
)
"""Commands that exit with `EXIT_UNUSABLE` in place of `EXIT_USAGE`."""
WITH_PYTEST_ARGUMENTS = ("ab", "deploy")
"""Commands whose arguments after ``--`` go to pytest."""

DESCRIPTION = """Prepare `pytest benchmarks`, and read and compare the runs that it saves.

Exit codes: 0 success; 1 a finding, such as a regression or a damaged image;
4 wrong usage or missing input, with one line on standard error (2 for ab,
accept, compare, history, index, init, merge, pool, rank, regret, report and
squeeze)."""


def make_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands; each module is imported for it."""
    parser = argparse.ArgumentParser(
        prog="embedcore", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"embedcore {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in names:
        importlib.import_module(f"embedcore.commands.{name}").add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code."""
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    command = arguments[0] if arguments else ""
    parser = make_parser([command] if command in COMMANDS else COMMANDS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODABLE)  # a terminal without "±" shows a substitute, not a traceback
    exit_unusable = EXIT_UNUSABLE if command in WITH_EXIT_UNUSABLE else EXIT_USAGE
    passed_on: list[str] = []
    if command in WITH_PYTEST_ARGUMENTS and "--" in arguments:
        cut = arguments.index("--")  # argparse would count them among the positional arguments
        arguments, passed_on = arguments[:cut], arguments[cut + 1 :]
    try:
        parsed, others = parser.parse_known_args(arguments)
        if others and not getattr(parsed, "takes_pytest_arguments", False):
            parser.error(f"unrecognized arguments: {' '.join(others)}")
    except SystemExit as error:  # argparse has printed its message; its own exit code is always 2
        return exit_unusable if error.code else 0
    parsed.arguments = [*getattr(parsed, "arguments", ()), *others, *passed_on]
    paths = {name: user_path(value) for name, value in vars(parsed).items() if isinstance(value, Path)}
    vars(parsed).update(paths)  # shells do not expand the ~ in --cache=~/c
    try:
        return int(parsed.run(parsed))
    except EmbedcoreError as error:
        print(f"embedcore: {printable_lines(str(error))}", file=sys.stderr)
        return exit_unusable
    except BrokenPipeError:  # `embedcore … | head`
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
