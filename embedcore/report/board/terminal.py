"""Leaderboards for the terminal: the best of each family, fitted to its width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from tabulate import tabulate

from embedcore.plain import wrapped
from embedcore.report.board import captions
from embedcore.report.board.columns import (
    Column,
    cut,
    footnotes,
    leader_columns,
    leaderboard_columns,
    marked_name,
    random_notice,
    shown,
    without_intervals,
)
from embedcore.results.leaderboard import Leaderboard, Row

TOP = 10  # rows of a table in the terminal
_GAP = 2  # blanks that tabulate's "plain" format puts between columns
_SHORTEST_NAME = 20
_READABLE_NAME = 24  # a model's name is shortened to this, in the middle, before acc5 and the rank go
_KEPT = 2  # the highest `drop` of those columns
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
    """All leaderboards, one a dataset, as text of at most `width` columns (a model's name that is wider is cut).

    Of each table the first `TOP` rows; what is left out is said, with `report_dir`, the folder of the full tables, or
    with how to get one. Excluded cases come last.
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
    # A line that holds line ends is a table.
    texts = ("\n".join(line if "\n" in line else wrapped(line, width) for line in block) for block in blocks)
    return "\n\n".join(text for text in texts if text)


def _tables(board: Leaderboard) -> Iterator[tuple[str, Sequence[Row], Sequence[Column], int, Sequence[str]]]:
    """Heading, rows, columns, the most rows to be shown and the lines below of each table; what matters most comes
    last, where a terminal shows it."""
    groups = captions.families_apart(board)
    for group in groups:
        yield f"{group.title} ({_models(group.rows)})", group.rows, leaderboard_columns(), TOP, ()
    if groups:
        yield "Leader of each family, the best first", board.leaders, leader_columns({}), len(board.leaders), ()
    alike = not groups and captions.acc5_orders_alike(board)
    for metric, rows in (("acc", board.by_acc), ("acc5", () if alike else board.by_acc5)):
        if rows:
            below = captions.leader_lines(board, metric, most_names=_MOST_NAMES)
            yield f"Overall by {metric} ({_models(rows)})", rows, leaderboard_columns(metric), TOP, below


def fit(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Column]:
    """The columns that a table of these rows has room for in `width`, in their order; the most important stay.

    Where weights are random their column stays as well. By its longest name, which is shortened, the table may still be
    too wide.
    """
    kept = list(columns)
    if any(row.result.random_weights for row in rows):
        kept = [replace(c, drop=0) if c.key == "weights" else c for c in kept]
    longest = width  # of a name
    while sum(min(_column_width(c, rows), longest if c.key == "model" else width) + _GAP for c in kept) - _GAP > width:
        least = max(reversed(kept), key=lambda column: column.drop)
        if least.drop <= _KEPT and longest > _READABLE_NAME:
            longest = _READABLE_NAME
        elif least.drop <= 1 and any(column.narrow for column in kept):
            kept = without_intervals(kept)
        elif least.drop:
            kept.remove(least)
        else:
            break
    return kept


def _column_width(column: Column, rows: Sequence[Row]) -> int:
    return max(len(column.short or column.key), *(len(column.cell(row)) for row in rows))


def _table(heading: str, rows: Sequence[Row], board: Leaderboard, columns: Sequence[Column], width: int) -> list[str]:
    """A table of all these rows, and the lines above and below it."""
    rows, columns = shown(rows, columns, intervals=captions.has_intervals(board.dataset))
    kept = fit(columns, rows, width)
    others = sum(_column_width(column, rows) + _GAP for column in kept if column.key != "model")
    longest = max(_SHORTEST_NAME, width - others)
    cells = [[marked_name(row.result, longest) if c.key == "model" else c.cell(row) for c in kept] for row in rows]
    # The heading is a row like the others: as headers, tabulate would make columns two blanks wider than they need.
    headings = [column.short or column.key for column in kept]
    rules = ["-" * max(map(len, texts)) for texts in zip(headings, *cells, strict=True)]
    table = tabulate(
        [headings, rules, *cells],
        tablefmt="plain",
        colalign=["left" if column.text else "right" for column in kept],
        disable_numparse=True,
    )
    limit = captions.acc5_limit(board.dataset)
    above = [f"{heading}; {limit}" if limit else heading, random_notice(rows)]
    return [*filter(None, above), table, *footnotes(rows, [column.key for column in kept])]


def _excluded(board: Leaderboard, rest: str) -> Iterator[str]:
    if board.excluded:
        yield captions.excluded_summary(board)
    for status, same in groupby(board.excluded, key=lambda exclusion: exclusion.status):
        exclusions = list(same)
        for exclusion in exclusions[:_MOST_REASONS]:
            short = replace(exclusion, reason=cut(exclusion.reason, _LONGEST_REASON))
            yield f"  {captions.exclusion_line(short, most_names=_MOST_NAMES)}"
        others = exclusions[_MOST_REASONS:]
        if others:
            count = sum(len(exclusion.results) for exclusion in others)
            yield f"  {count} {status} for {len(others)} other reason{'' if len(others) == 1 else 's'}; {rest}"


def _missing(settings: Mapping[str, Any], rest: str) -> Iterator[str]:
    lines = captions.missing_lines(settings)
    if lines:
        yield f"{captions.MISSING}: {len(lines)}"
    yield from (f"  {cut(line, _LONGEST_REASON)}" for line in lines[:_MOST_NAMES])
    if len(lines) > _MOST_NAMES:
        yield f"  … {len(lines) - _MOST_NAMES} more; {rest}"


def _models(rows: Sequence[Row]) -> str:
    return f"{len(rows)} model{'' if len(rows) == 1 else 's'}"
