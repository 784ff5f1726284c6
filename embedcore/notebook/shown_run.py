"""A run that a notebook shows as its leaderboard."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tabulate import tabulate

from embedcore.errors import UsageError
from embedcore.files import STORAGE
from embedcore.plain import counted
from embedcore.report.board import captions
from embedcore.report.board.columns import footnotes, leaderboard_columns, random_notice, shown
from embedcore.results import reading
from embedcore.results.leaderboard import Leaderboard, boards_of
from embedcore.results.run import Run as SavedRun

MOST_ROWS = 50
_LEAST_IMPORTANT = 5
"""Columns with a higher `Column.drop` are left out."""
_MOST_NAMES = 5


class Run(SavedRun):
    """The results of one run; a notebook shows its leaderboard."""

    def _repr_html_(self) -> str:
        return "".join(part for board in boards_of(self) for part in _html(board))

    def plot(self, name: str = "leaders-acc", *, dataset: str | None = None) -> Any:
        """Return one of the report's charts as an Altair chart, which a notebook shows as SVG.

        name: such as ``leaders-acc``, ``acc-speed`` or ``families``; the error for another name lists all that this run
            has. dataset: name of the dataset, if the run has several; default: the first.

        Raises UsageError for a name or dataset that the run does not have.
        """
        from embedcore.notebook.run_chart import RunChart
        from embedcore.report.board.charts import charts
        from embedcore.report.board.rows import rows
        from embedcore.report.html.drawing import CONFIG
        from embedcore.results.class_table import class_table

        by_name = {captions.dataset_name(board.dataset): board for board in reversed(boards_of(self))}
        board = by_name.get(dataset) if dataset is not None else [*by_name.values()][-1]
        if board is None:
            raise UsageError(f"no dataset {dataset!r} in this run: {', '.join(by_name)}")
        table = None if board.unlabelled else class_table((row.result for row in board.by_acc), board.dataset)
        found = {chart.name: chart for chart in charts(board, rows(board), table)}
        if name not in found:
            raise UsageError(f"no chart {name!r}: {', '.join(found) or 'this run has none'}")
        return RunChart.from_dict({**found[name].standalone, "config": dict(CONFIG)}, validate=False)


def read_run(where: str | Path, *, storage: str | Path = STORAGE) -> Run:
    """Read a saved run: a file, a journal, a folder with the files of one run, or a saved name.

    Raises UsageError, with one line that names the file, if it is not JSON, was not saved by pytest-benchmark with
    embedcore, or has a schema that this version does not know.
    """
    return shown_run(reading.read_run(where, storage=storage))


def as_run(run: SavedRun | str | os.PathLike[str]) -> SavedRun:
    """Return a run as it is, or the one at a path. Raises UsageError."""
    return run if isinstance(run, SavedRun) else reading.read_run(os.fspath(run))


def shown_run(run: SavedRun) -> Run:
    """Return a saved run as one that a notebook can show."""
    return Run(**{item.name: getattr(run, item.name) for item in fields(run)})


def _html(board: Leaderboard) -> Iterator[str]:
    """Yield the parts of a leaderboard: heading, table of the best, notes, and what was not measured."""
    yield f"<p><b>{html.escape(captions.dataset_line(board.dataset))}</b></p>" if board.dataset else ""
    columns = [column for column in leaderboard_columns(board.headline.first) if (column.drop or 0) <= _LEAST_IMPORTANT]
    rows, columns = shown(board.by_acc[:MOST_ROWS], columns, intervals=captions.has_intervals(board.dataset))
    if rows:
        notice = random_notice(rows)
        yield f"<p><b>{html.escape(notice)}</b></p>" if notice else ""
        yield tabulate(
            [[column.cell(row) for column in columns] for row in rows],
            headers=[column.heading for column in columns],
            tablefmt="html",
            colalign=["left" if column.text else "right" for column in columns],
            disable_numparse=True,
        )
        more = len(board.by_acc) - len(rows)
        yield from _lines([f"and {counted(more, 'more model')}: embedcore.leaderboard(run)"] if more else [])
        yield from _lines(["; ".join(footnotes(rows, columns))])
        yield from _lines(captions.leader_lines(board, board.headline.first, most_names=_MOST_NAMES))
    yield from _lines([captions.excluded_summary(board)])
    yield from _lines(
        [captions.exclusion_line(exclusion, board, most_names=_MOST_NAMES) for exclusion in board.excluded]
    )


def _lines(lines: Sequence[str]) -> Iterator[str]:
    return (f"<div>{html.escape(line)}</div>" for line in lines if line)
