"""``embedcore report``: the report folder of saved runs, as ``--embed-report`` writes it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from embedcore.plain import printable_lines
from embedcore.results.run import STORAGE

EXIT_UNUSABLE = 2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report``."""
    parser = commands.add_parser(
        "report",
        help="a page with table and charts, from saved runs",
        description="Write index.html, which is whole in itself, charts as SVG and PNG, and leaderboard.md, .csv and "
        ".json into a folder. Several runs are joined as merge does it. Exit code 2 if they cannot be read or joined.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"a file, a folder of files, or a name in {STORAGE}")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", required=True, help="the folder to write into")
    parser.add_argument(
        "--all-charts", action="store_true", help="also the charts of single families, of more than 200 models"
    )
    parser.add_argument(
        "--gallery", action="append", default=[], metavar="MODEL", help="show what it retrieves, too; repeatable"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the cache folder, which has the neighbours (default: the user's)"
    )
    parser.set_defaults(run=run, exit_unusable=EXIT_UNUSABLE)


def run(arguments: argparse.Namespace) -> int:
    """Write the report; gives the exit code."""
    from embedcore.commands.cache import cache_folder
    from embedcore.report.albums import dataset_of, files_in, saved_album
    from embedcore.report.drawing import scripts_begun
    from embedcore.report.files import write_report
    from embedcore.results.leaderboard import boards_of
    from embedcore.results.merge import merge, read_parts
    from embedcore.results.run import find_run, run_of
    from embedcore.zoo.families import FAMILIES

    output: Path = arguments.output
    scripts_begun()
    paths = [find_run(name) for name in arguments.runs]
    parts = dict(part for path in paths for part in read_parts(path))
    first = next(iter(parts))
    merged = merge(list(parts.items()), allow_missing=True) if len(parts) > 1 else None
    for note in merged.notes if merged else ():
        print(f"embedcore: {printable_lines(note)}", file=sys.stderr)
    found = run_of(merged.data if merged else parts[first], first)
    boards = boards_of(found, {family.slug: family.title for family in FAMILIES})
    cache = cache_folder(arguments.cache)
    files = files_in([*(path if path.is_dir() else path.parent for path in paths), output])
    albums = [
        saved_album(board, cache, files, lambda: dataset_of(found.settings, cache), arguments.gallery)
        for board in boards
    ]
    write_report(
        output,
        boards,
        settings=found.settings,
        machine=found.versions,
        when=found.datetime,
        all_pictures=arguments.all_charts,
        albums=albums,
        asked=arguments.gallery,
    )
    print(f"{output / 'index.html'}: {len(found.results)} models measured, {len(found.excluded)} not")
    return 0
