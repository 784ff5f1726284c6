"""Leaderboards for the terminal, fitted to its width: the best models of each family and overall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from tabulate import tabulate

from embedcore.plain import counted, wrapped
from embedcore.report.board import captions
from embedcore.report.board.columns import (
    Column,
    column,
    cut,
    cut_middle,
    footnotes,
    leader_columns,
    leaderboard_columns,
    random_notice,
    shown,
    without_intervals,
)
from embedcore.report.board.names import short_names
from embedcore.results.leaderboard import Leaderboard, Row

TOP = 10  # rows of a table in the terminal
_GAP = 2  # blanks between columns in tabulate's "plain" format
_SHORTEST_NAME = 20
_READABLE_NAME = 24  # model names are cut to this before columns with a `drop` up to _KEPT are dropped
_KEPT = 2
_MOST_NAMES = 3
_MOST_REASONS = 5  # of one status
_LONGEST_REASON = 300


def terminal_report(
    boards: Sequence[Leaderboard],
    *,
    width: int,
    settings: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    when: str | None = None,
    report_dir: str | None = None,
) -> str:
    """Return the leaderboards of all datasets as text of at most `width` columns, with model names cut to fit.

    Each table has its first `TOP` rows and a line that refers to `report_dir`, the folder of the full tables, or to the
    option that writes it. Excluded cases come last.
    """
    rest = f"all are in {report_dir}/leaderboard.md" if report_dir else "--embed-report DIR writes all of them"
    blocks: list[list[str]] = []
    for board in boards:
        if len(boards) > 1:
            blocks.append([f"=== {captions.dataset_name(board.dataset)} ==="])
        blocks.append(captions.legend(board, settings or {}, machine or {}, when))
        for heading, rows, columns, most, below in _tables(board):
            blocks.append(_table(heading, rows[:most], board, columns, width))
            if len(rows) > most:
                blocks[-1].append(f"… {len(rows) - most} more; {rest}")
            blocks[-1] += below
        blocks.append(list(_excluded(board, rest)))
    blocks.append(list(_missing(settings or {}, rest)))
    # A line with newlines is a table: it is not wrapped.
    texts = ("\n".join(line if "\n" in line else wrapped(line, width) for line in block) for block in blocks)
    return "\n\n".join(text for text in texts if text)


def _tables(board: Leaderboard) -> Iterator[tuple[str, Sequence[Row], Sequence[Column], int, Sequence[str]]]:
    """Yield heading, rows, columns, maximum number of rows and lines below of each table; the most important table is
    last, where a terminal shows it."""
    first, five = board.headline
    groups = captions.families_apart(board)
    for group in groups:
        yield f"{group.title} ({counted(len(group.rows), 'model')})", group.rows, leaderboard_columns(first), TOP, ()
    if groups:
        yield "Leader of each family, the best first", board.leaders, leader_columns({}, first), len(board.leaders), ()
    alike = not groups and captions.acc5_orders_alike(board)
    for metric, rows in ((first, board.by_acc), (five, () if alike else board.by_acc5)):
        if rows:
            below = captions.leader_lines(board, metric, most_names=_MOST_NAMES)
            yield f"Overall by {metric} ({counted(len(rows), 'model')})", rows, leaderboard_columns(metric), TOP, below


def fit(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Column]:
    """Return the columns that fit into `width`, in their order, dropping the least important first.

    The weights column stays where weights are random. With a long model name, which is cut later, the table may still
    be too wide.
    """
    kept = list(columns)
    if any(row.result.random_weights for row in rows):
        kept = [replace(c, drop=0) if c.key == "weights" else c for c in kept]
    longest = width  # of a name
    while sum(min(_column_width(c, rows), longest if c.key == "model" else width) + _GAP for c in kept) - _GAP > width:
        least = max(reversed(kept), key=_drop)
        if _drop(least) <= _KEPT and longest > _READABLE_NAME:
            longest = _READABLE_NAME
        elif _drop(least) <= 1 and any(each.interval for each in kept):
            kept = without_intervals(kept)
        elif _drop(least):
            kept.remove(least)
        else:
            break
    return kept


def _drop(column: Column) -> int:
    return column.drop or 0


def _column_width(column: Column, rows: Sequence[Row]) -> int:
    return max(len(column.heading), *(len(column.cell(row)) for row in rows))


def _table(heading: str, rows: Sequence[Row], board: Leaderboard, columns: Sequence[Column], width: int) -> list[str]:
    """Return a table of these rows and the lines above and below it."""
    rows, columns = shown(rows, columns, intervals=captions.has_intervals(board.dataset))
    kept = fit(columns, rows, width)
    others = sum(_column_width(column, rows) + _GAP for column in kept if column.key != "model")
    names = _names(rows, max(_SHORTEST_NAME, width - others))
    cells = [[name if c.key == "model" else c.cell(row) for c in kept] for name, row in zip(names, rows, strict=True)]
    # Headings are passed as a row: tabulate makes columns with headers two blanks too wide.
    headings = [column.heading for column in kept]
    rules = ["-" * max(map(len, texts)) for texts in zip(headings, *cells, strict=True)]
    table = tabulate(
        [headings, rules, *cells],
        tablefmt="plain",
        colalign=["left" if column.text else "right" for column in kept],
        disable_numparse=True,
    )
    limit = captions.acc5_limit(board.dataset)
    above = [f"{heading}; {limit}" if limit else heading, random_notice(rows)]
    return [*filter(None, above), table, *footnotes(rows, kept)]


def _names(rows: Sequence[Row], longest: int) -> list[str]:
    """Return the names of the models with their marks, in at most `longest` characters."""
    signs = [column("model").signs(row) for row in rows]
    room = longest - max(map(len, signs), default=0)
    short = short_names([row.result.model for row in rows], room)
    return [cut_middle(name, room) + sign for name, sign in zip(short, signs, strict=True)]


def _excluded(board: Leaderboard, rest: str) -> Iterator[str]:
    if board.excluded:
        yield captions.excluded_summary(board)
    for status, same in groupby(board.excluded, key=lambda exclusion: exclusion.status):
        exclusions = list(same)
        for exclusion in exclusions[:_MOST_REASONS]:
            short = replace(exclusion, reason=cut(exclusion.reason, _LONGEST_REASON))
            yield f"  {captions.exclusion_line(short, board, most_names=_MOST_NAMES)}"
        others = exclusions[_MOST_REASONS:]
        if others:
            count = sum(len(exclusion.results) for exclusion in others)
            yield f"  {count} {status} for {counted(len(others), 'other reason')}; {rest}"


def _missing(settings: Mapping[str, Any], rest: str) -> Iterator[str]:
    lines = captions.missing_lines(settings)
    if lines:
        yield f"{captions.MISSING}: {len(lines)}"
    yield from (f"  {cut(line, _LONGEST_REASON)}" for line in lines[:_MOST_NAMES])
    if len(lines) > _MOST_NAMES:
        yield f"  … {len(lines) - _MOST_NAMES} more; {rest}"
