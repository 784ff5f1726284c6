"""Leaderboards as Markdown: every family with all its columns and rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from embedcore.plain import one_line
from embedcore.report.board import captions
from embedcore.report.board.columns import Column, footnotes, leader_columns, leaderboard_columns, random_notice, shown
from embedcore.results.leaderboard import Leaderboard, Row

OVERALL_TOP = 50
"""Rows of the overall tables; the families' tables have all rows, and leaderboard.csv has their overall ranks."""

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# Model names are full of underscores; between letters or digits Markdown takes them literally.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^(?=[#+=-])")


def escape(text: str) -> str:
    """Return `text` on one line, escaped so that Markdown shows it unchanged, also in a cell of a table."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], one_line(text)).translate(_HTML)


def markdown_report(
    boards: Sequence[Leaderboard],
    *,
    settings: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    when: str | None = None,
) -> str:
    """Return the leaderboards of all datasets and all excluded cases as one Markdown document."""
    blocks = []
    for board in boards:
        dataset = f": {escape(captions.dataset_name(board.dataset))}" if len(boards) > 1 else ""
        blocks += [
            f"# embedcore leaderboards{dataset}",
            _list(captions.legend(board, settings or {}, machine or {}, when)),
            *_board(board),
        ]
    missing = captions.missing_lines(settings or {})
    if missing:
        blocks += [f"## {captions.MISSING} ({len(missing)})", _list(missing)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _board(board: Leaderboard) -> Iterator[str]:
    if board.by_acc:
        groups = captions.families_apart(board) if len(board.by_acc) <= OVERALL_TOP else board.groups
        alike = not groups and captions.acc5_orders_alike(board)
        first, five = board.headline
        for metric, rows in ((first, board.by_acc), (five, board.by_acc5))[: 1 if alike else 2]:
            yield f"## Overall by {metric}"
            yield _table(rows[:OVERALL_TOP], board, leaderboard_columns(metric))
            if len(rows) > OVERALL_TOP:
                yield f"The best {OVERALL_TOP} of {len(rows)}; the tables of the families below have the others."
            yield _list(captions.leader_lines(board, metric, most_names=OVERALL_TOP))
        if len(groups) > 1:
            yield "## Leader of each family\n\nThe rank is the overall one."
            titles = {group.slug: group.title for group in groups}
            yield _table(board.leaders, board, leader_columns(titles, first))
        for group in groups:
            yield f"## {escape(group.title)} ({len(group.rows)})"
            for heading, rows in group.parts:
                yield f"### {escape(group.title)}: {heading}" if heading else ""
                yield _table(rows, board, leaderboard_columns(first))
    if board.excluded:
        yield f"## Not measured\n\n{escape(captions.excluded_summary(board))}"
        yield _list(captions.exclusion_line(exclusion, board) for exclusion in board.excluded)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _table(rows: Sequence[Row], board: Leaderboard, columns: Sequence[Column]) -> str:
    rows, columns = shown(rows, columns, intervals=captions.has_intervals(board.dataset))
    table = tabulate(
        [[escape((column.full or column.cell)(row)) for column in columns] for row in rows],
        headers=[column.long_heading for column in columns],
        tablefmt="pipe",
        colalign=["left" if column.text else "right" for column in columns],
        disable_numparse=True,
    )
    notice = random_notice(rows)
    notes = [captions.acc5_limit(board.dataset), *footnotes(rows, columns)]
    blocks = (f"**{escape(notice)}**" if notice else "", table, "; ".join(escape(note) for note in notes if note))
    return "\n\n".join(filter(None, blocks))
