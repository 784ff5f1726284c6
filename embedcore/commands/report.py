"""``embedcore report``: write the report folder of saved runs, as ``--embed-report`` does."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.commands.arguments import print_notes, width
from embedcore.errors import UsageError
from embedcore.files import STORAGE, cache_folder

if TYPE_CHECKING:
    from embedcore.report.html.drawing import Draw


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write a page with table and charts from saved runs",
        description="Write a self-contained index.html, charts, leaderboard.md, .csv and .json into a folder; without "
        "-o print the tables. Several runs are merged. Exit code 2 if they cannot be read or merged.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="*",
        help=f"a file (also a journal), a folder of files or of --embed-claim, or a name in {STORAGE}",
    )  # fmt: skip
    parser.add_argument("--last", action="store_true", help="the latest run, from its journal, saved or not")
    parser.add_argument(
        "--live", action="store_true",
        help="rewrite the page every minute until all cases of the folder of --embed-claim are done (Ctrl-C ends it)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to write into (default: print the tables)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON of the run, as --benchmark-json does")
    parser.add_argument(
        "--gallery", action="append", default=[], metavar="MODEL",
        help="also show what this model retrieves; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the --embed-cache of the run, for --last and retrieved images"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.report.html.drawing import drawing_process, start_scripts

    names = _named(arguments)
    output: Path | None = arguments.output
    if arguments.live:
        if len(names) > 1 or output is None:
            raise UsageError("report --live: name one folder of --embed-claim, and -o DIR")
        _live(names[0], output)
    if output is None:
        return _report(arguments, names)
    start_scripts()
    with drawing_process() as draw:
        return _report(arguments, names, draw)


def _report(arguments: argparse.Namespace, names: Sequence[str], draw: Draw | None = None) -> int:
    """Merge the runs of these names; `draw`: None without a folder to write into."""
    from embedcore.report.board.board_page import Unfinished
    from embedcore.report.board.terminal import terminal_report
    from embedcore.report.gallery.gallery import dataset_of, gallery_of
    from embedcore.report.report_folder import write_report
    from embedcore.results.leaderboard import boards_of
    from embedcore.results.merge import merge, write_run
    from embedcore.results.reading import read_parts
    from embedcore.results.run import run_of

    output: Path | None = arguments.output
    parts = dict(part for name in names for part in read_parts(name, lambda line: print_notes([line])))
    first = next(iter(parts))
    merged = merge(list(parts.items()), allow_missing=True) if len(parts) > 1 else None
    print_notes(merged.notes if merged else ())
    data = merged.data if merged else parts[first]
    found = run_of(data, first)
    boards = boards_of(found)
    cases = len({result.model for result in (*found.results, *found.excluded)} | found.unreached)
    done = cases - len(found.unreached)
    stopped = Unfinished(done, cases, f"Not finished: {done:,} of {cases:,} cases are done.")
    if found.unreached:
        print_notes([f"{len(found.unreached)} of {cases} cases were not reached"])
    if arguments.json is not None:
        write_run(data, arguments.json, "--json")
        print(f"{arguments.json}: {len(data['benchmarks'])} benchmarks")
    if output is not None:
        cache = cache_folder(arguments.cache)
        galleries = [
            gallery_of(board, cache, lambda: dataset_of(found.settings, cache), arguments.gallery) for board in boards
        ]
        write_report(
            output,
            boards,
            settings=found.settings,
            machine=found.versions,
            when=found.datetime,
            unfinished=stopped if found.unreached else None,
            galleries=galleries,
            asked=arguments.gallery,
            draw=draw,
        )
        print(f"{output / 'index.html'}: {len(found.results)} models measured, {len(found.excluded)} not")
    else:
        settings, machine, when = found.settings, found.versions, found.datetime
        print(terminal_report(boards, width=width(sys.maxsize), settings=settings, machine=machine, when=when))
    return 0


def _live(name: str, output: Path) -> None:
    """Rewrite the page of a claim folder until all cases have a result, or until Ctrl-C. Raises UsageError."""
    from embedcore.report.run_page import EVERY_S, write_page
    from embedcore.results.claimed_run import read_claimed
    from embedcore.results.claims import is_shared
    from embedcore.results.reading import find_run

    folder = find_run(name)
    if not is_shared(folder):
        raise UsageError(f"report --live: no worker has joined {folder} with --embed-claim yet")
    with contextlib.suppress(KeyboardInterrupt):
        while not (record := read_claimed(folder)).planned or record.unreached:
            if record.results:
                try:
                    write_page(output, record, reload_s=EVERY_S)
                except OSError as error:
                    raise UsageError(f"report folder {output} cannot be written: {error.strerror or error}") from error
            time.sleep(EVERY_S)


def _named(arguments: argparse.Namespace) -> list[str]:
    """Return the names of the runs. Raises UsageError."""
    if bool(arguments.runs) == arguments.last:
        raise UsageError("report: name one or more RUNs, or --last for the latest run")
    if not arguments.last:
        return list(arguments.runs)
    from embedcore.results.reading import last_run
    from embedcore.results.runs import FOLDER

    return [str(last_run(cache_folder(arguments.cache) / FOLDER))]
