"""``embedcore history``: speed, accuracy, memory and embeddings over many saved runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from embedcore.commands.arguments import print_notes, width
from embedcore.compare.limits import read_limits
from embedcore.errors import UsageError
from embedcore.files import STORAGE, writing
from embedcore.results.headline import expect_labels
from embedcore.results.reading import find_run, read_json
from embedcore.results.run import Run, is_run, run_of


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "history",
        help="show when acc, speed, memory or embeddings changed over saved runs",
        description="List lasting changes of acc, speed, memory and embeddings over saved runs, newest first, and "
        "trends: changes at a steady rate over at least six runs. Exit code 2 if a run cannot be read, else 0.",
    )
    parser.add_argument(
        "runs", metavar="DIR|RUN", nargs="+", help=f"folder of saved runs such as {STORAGE}, a file, or a name in it"
    )
    parser.add_argument("-k", metavar="GLOB", help="show the series of matching models and families")
    parser.add_argument(
        "--format", choices=("text", "json", "csv"), default="text", help="output format (default: text)"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a self-contained page of steps, series and charts"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.compare.history import history
    from embedcore.report.history import history_text as report

    if arguments.html is not None:
        from embedcore.report.html.drawing import start_scripts

        start_scripts()
    found = history(_read(arguments.runs), read_limits(None, Path()))
    shown = [series for series in found.series if arguments.k and series.matches(arguments.k)]
    if arguments.k and not shown:
        raise UsageError(f"-k {arguments.k}: no model or family of these runs matches")
    if arguments.format == "text":
        sys.stdout.write(report.text(found, shown, width=width()))
    elif arguments.format == "json":
        sys.stdout.write(json.dumps(report.to_json(found, shown or found.series), indent=1) + "\n")
    else:
        sys.stdout.write(report.to_csv(found, shown or found.series))
    if arguments.html is not None:
        from embedcore.report.history.history_page import history_page

        series = shown or [s for s in found.series if s.of_family]
        page = history_page(found, series, ", ".join(arguments.runs))
        with writing(arguments.html, "--html") as file:
            file.write(page.encode())
    return 0


def _read(names: list[str]) -> list[Run]:
    """Return every run that is named or in a folder; unreadable files in a folder are reported and skipped."""
    runs: dict[Path, Run] = {}
    for name in names:
        where = find_run(name)
        for path in sorted(where.rglob("*.json")) if where.is_dir() else [where]:
            try:
                data = read_json(path)
                if is_run(data) or not where.is_dir():
                    found = run_of(data, path)
                    expect_labels(found.blocks, path, "history")
                    runs[path] = found
            except UsageError as error:
                if not where.is_dir():
                    raise
                print_notes([f"skipped: {error}"])
    if not runs:
        raise UsageError(f"no saved run in {', '.join(names)}")
    return list(runs.values())
