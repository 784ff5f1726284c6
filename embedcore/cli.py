"""The command ``embedcore``.

Exit codes: 0 all is well, 1 something was found that needs attention (of compare: a regression), 4 something asked for
is not there or makes no sense (one line on standard error says what). The commands of the gate give 2 for that.
"""

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
    *("ab", "cache", "check", "compare", "families", "history"),
    *("init", "merge", "plan", "rank", "report", "weights"),
)

EXIT_USAGE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; gives the exit code."""
    parser = argparse.ArgumentParser(prog="embedcore", description=__doc__, exit_on_error=True)
    parser.add_argument("--version", action="version", version=f"embedcore {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"embedcore.commands.{name}").add_parser(commands)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODABLE)  # a table in a terminal that has no "±" is better than a traceback
    chosen = commands.choices.get(next(iter(sys.argv[1:] if arguments is None else arguments), ""))
    exit_unusable = (chosen and chosen.get_default("exit_unusable")) or EXIT_USAGE
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as error:  # argparse has printed its line; its own code for it is 2
        return exit_unusable if error.code else 0
    paths = {name: user_path(value) for name, value in vars(parsed).items() if isinstance(value, Path)}
    vars(parsed).update(paths)  # a shell leaves the ~ of --cache=~/c as it is
    try:
        return int(parsed.run(parsed))
    except EmbedcoreError as error:
        print(f"embedcore: {printable_lines(str(error))}", file=sys.stderr)
        return exit_unusable
    except BrokenPipeError:  # `embedcore … | head` has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
