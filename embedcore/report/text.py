"""Leaderboards for the terminal: the best of each family, fitted to its width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from embedcore.report.captions import (
    acc5_limit,
    dataset_line,
    excluded_summary,
    exclusion_line,
    settings_line,
)
from embedcore.report.columns import Column, cut, footnotes, leader_columns, leaderboard_columns, random_notice
from embedcore.results.leaderboard import Exclusion, Leaderboard, Row

TOP = 10
"""Rows of a table in the terminal."""

_GAP = 2  # blanks that tabulate's "plain" format puts between columns
_SHORTEST_NAME = 20
_MOST_NAMES = 3
_MOST_REASONS = 5  # of one status
_LONGEST_REASON = 300


def terminal_report(
    board: Leaderboard,
    *,
    width: int,
    settings: Mapping[str, Any] | None = None,
    report_dir: str | None = None,
    top: int = TOP,
) -> str:
    """All leaderboards as text of at most `width` columns (a model's name that is wider by itself is cut).

    Of each table the first `top` rows; what is left out is said, with `report_dir`, the folder of the full tables, or
    with how to get one. Excluded cases come last.
    """
    rest = f"all are in {report_dir}/leaderboard.md" if report_dir else "--embed-report DIR writes all of them"
    blocks: list[str] = []
    if board.by_acc:
        blocks.append(_legend(board, settings or {}, width))
        blocks += [_table(f"{g.title} ({_models(g.rows)})", g.rows, board, width, top, rest) for g in board.groups]
        leaders = tuple(row for _, row in board.leaders)
        heading = "Leader of each family, the best first"
        blocks.append(_table(heading, leaders, board, width, len(leaders), rest, leader_columns({})))
        blocks.append(_table(f"Overall by acc ({_models(board.by_acc)})", board.by_acc, board, width, top, rest))
        heading = f"Overall by acc5 ({_models(board.by_acc5)})"
        blocks.append(_table(heading, board.by_acc5, board, width, top, rest, leaderboard_columns("acc5")))
    elif board.dataset:
        blocks.append(_wrapped(dataset_line(board.dataset), width))
    if board.excluded:
        blocks.append(_excluded(board, width, rest))
    return "\n\n".join(blocks)


def fit(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Column]:
    """The columns that a table of these rows has room for in `width`, in their order; the most important stay.

    Where weights are random their column stays as well. By its longest name the table may still be too wide.
    """
    kept = list(columns)
    if any(row.result.random_weights for row in rows):
        kept = [replace(c, drop=0) if c.key == "weights" else c for c in kept]
    widths = {column.key: _column_width(column, rows) for column in kept}
    while sum(widths[c.key] + _GAP for c in kept) - _GAP > width:
        least = max(kept, key=lambda column: column.drop)
        if not least.drop:
            return [replace(c, cell=c.narrow or c.cell) for c in kept]
        kept.remove(least)
    return kept


def _column_width(column: Column, rows: Sequence[Row]) -> int:
    return max(len(column.short), *(len(column.cell(row)) for row in rows))


def _table(
    heading: str,
    rows: Sequence[Row],
    board: Leaderboard,
    width: int,
    top: int,
    rest: str,
    columns: Sequence[Column] | None = None,
) -> str:
    shown = rows[:top]
    kept = fit(columns or leaderboard_columns(), shown, width)
    others = sum(_column_width(column, shown) + _GAP for column in kept if column.key != "model")
    longest = max(_SHORTEST_NAME, width - others)
    cells = [[cut(c.cell(row), longest) if c.key == "model" else c.cell(row) for c in kept] for row in shown]
    # The heading is a row like the others: as headers, tabulate would make columns two blanks wider than they need.
    headings = [column.short for column in kept]
    rules = ["-" * max(map(len, texts)) for texts in zip(headings, *cells, strict=True)]
    table = tabulate(
        [headings, rules, *cells],
        tablefmt="plain",
        colalign=["left" if column.left else "right" for column in kept],
        disable_numparse=True,
    )
    limit = acc5_limit(board.dataset)
    lines = [_wrapped(f"{heading}; {limit}" if limit else heading, width)]
    notice = random_notice(shown)
    lines += [_wrapped(notice, width)] if notice else []
    lines.append(table)
    if len(rows) > len(shown):
        lines.append(_wrapped(f"… {len(rows) - len(shown)} more; {rest}", width))
    lines += [_wrapped(note, width) for note in footnotes(shown, [column.key for column in kept])]
    return "\n".join(lines)


def _legend(board: Leaderboard, settings: Mapping[str, Any], width: int) -> str:
    lines = [
        dataset_line(board.dataset),
        "acc: the nearest neighbour is of the query's class (± half the 95 % interval); acc5: share of the 5 nearest; "
        "M: million parameters; img/s: forward pass",
        settings_line((row.result for row in board.by_acc), settings),
    ]
    return "\n".join(_wrapped(line, width) for line in lines if line)


def _excluded(board: Leaderboard, width: int, rest: str) -> str:
    lines = [_wrapped(excluded_summary(board), width)]
    by_status: dict[str, list[Exclusion]] = {}
    for exclusion in board.excluded:
        by_status.setdefault(exclusion.status, []).append(exclusion)
    for status, exclusions in by_status.items():
        for exclusion in exclusions[:_MOST_REASONS]:
            short = Exclusion(status, cut(exclusion.reason, _LONGEST_REASON), exclusion.results)
            lines.append(_wrapped(exclusion_line(short, most_names=_MOST_NAMES), width, "  "))
        left = exclusions[_MOST_REASONS:]
        if left:
            count = sum(len(exclusion.results) for exclusion in left)
            reasons = f"{len(left)} other reason{'' if len(left) == 1 else 's'}"
            lines.append(_wrapped(f"{count} {status} for {reasons}; {rest}", width, "  "))
    return "\n".join(lines)


def _models(rows: Sequence[Row]) -> str:
    return f"{len(rows)} model{'' if len(rows) == 1 else 's'}"


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text,
        width=max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
