"""The command ``embedcore``.

Exit codes: 0 all is well, 1 something was found that needs attention, 4 something asked for is not there or makes no
sense (one line on standard error says what).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from embedcore.errors import EmbedcoreError
from embedcore.plain import printable_lines

COMMANDS = ("ab", "cache", "check", "weights")

EXIT_USAGE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; gives the exit code."""
    parser = argparse.ArgumentParser(prog="embedcore", description=__doc__, exit_on_error=True)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"embedcore.commands.{name}").add_parser(commands)
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as error:  # argparse has printed its line; its own code for it is 2
        return EXIT_USAGE if error.code else 0
    try:
        return int(parsed.run(parsed))
    except EmbedcoreError as error:
        print(f"embedcore: {printable_lines(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # `embedcore … | head` has seen enough
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
