"""Leaderboards as Markdown: every family with all its columns and rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from embedcore.plain import one_line
from embedcore.report.captions import acc5_limit, dataset_line, excluded_summary, exclusion_line, settings_line
from embedcore.report.columns import Column, footnotes, leader_columns, leaderboard_columns, random_notice
from embedcore.results.leaderboard import Leaderboard, Row

OVERALL_TOP = 50
"""Rows of the overall tables; all rows are in the families' tables, and their overall ranks in leaderboard.csv."""

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# An underscore between letters or digits is plain text in Markdown, and model names are full of them.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^(?=[#+=-])")


def escape(text: str) -> str:
    r"""`text` so that Markdown shows it as it is, on one line and inside a table's cell.

    >>> print(escape("a_b|<b>*x*"))
    a_b\|&lt;b&gt;\*x\*
    """
    return _SPECIAL.sub(lambda match: "\\" + match[0], one_line(text)).translate(_HTML)


def markdown_report(board: Leaderboard, *, settings: Mapping[str, Any] | None = None) -> str:
    """All leaderboards and all excluded cases as one Markdown document."""
    blocks = ["# embedcore leaderboards", _legend(board, settings or {})]
    if board.by_acc:
        titles = {group.slug: group.title for group in board.groups}
        leaders = tuple(row for _, row in board.leaders)
        blocks += [
            _overall("Overall by acc", board.by_acc, board, leaderboard_columns("acc")),
            _overall("Overall by acc5", board.by_acc5, board, leaderboard_columns("acc5")),
            "## Leader of each family\n\nThe rank is the overall one.",
            _table(leaders, board, leader_columns(titles)),
        ]
        for group in board.groups:
            blocks.append(f"## {escape(group.title)} ({len(group.rows)})")
            for heading, rows in group.parts:
                blocks += [f"### {escape(group.title)}: {heading}"] if heading else []
                blocks.append(_table(rows, board, leaderboard_columns()))
    if board.excluded:
        lines = "\n".join(f"- {escape(exclusion_line(exclusion))}" for exclusion in board.excluded)
        blocks.append(f"## Not measured\n\n{escape(excluded_summary(board))}\n\n{lines}")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _legend(board: Leaderboard, settings: Mapping[str, Any]) -> str:
    lines = [
        dataset_line(board.dataset) if board.dataset else "",
        settings_line((row.result for row in board.by_acc), settings),
        "acc: the nearest neighbour is of the query's class, ± half its 95 % interval (resampled by class)",
        "acc5: share of the 5 nearest neighbours that are of the query's class, always divided by 5",
        "images/s: the forward pass alone",
    ]
    return "\n".join(f"- {escape(line)}" for line in lines if line)


def _overall(heading: str, rows: Sequence[Row], board: Leaderboard, columns: Sequence[Column]) -> str:
    table = f"## {heading}\n\n{_table(rows[:OVERALL_TOP], board, columns)}"
    if len(rows) <= OVERALL_TOP:
        return table
    return f"{table}\n\nThe best {OVERALL_TOP} of {len(rows)}; the others are below in their families."


def _table(rows: Sequence[Row], board: Leaderboard, columns: Sequence[Column]) -> str:
    table = tabulate(
        [[escape((column.full or column.cell)(row)) for column in columns] for row in rows],
        headers=[column.long for column in columns],
        tablefmt="pipe",
        colalign=["left" if column.left else "right" for column in columns],
        disable_numparse=True,
    )
    notice = random_notice(rows)
    notes = [acc5_limit(board.dataset), *footnotes(rows, [column.key for column in columns])]
    below = "; ".join(escape(note) for note in notes if note)
    return "\n\n".join(block for block in (f"**{escape(notice)}**" if notice else "", table, below) if block)
