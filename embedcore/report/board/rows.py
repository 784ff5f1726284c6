"""The data of the page's table and charts: one flat row for each measured model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedcore.report.board.answer import take
from embedcore.report.board.columns import Column, Entry, cut, entries, input_size, page_columns, size_text
from embedcore.report.board.front import AXES, pareto_front
from embedcore.report.board.marks import doubts, mark_words, non_commercial
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.result import Result

_LONGEST = 80  # characters; the longest name of timm 1.0.31 has 56


def rows(board: Leaderboard) -> list[dict[str, Any]]:
    """Return a row for each measured model, the best first, without values that are unknown or false.

    ``cells`` are the texts of `columns_data`, in their order, and the value of each is under its key. ``id`` is the
    place in the list; ``name`` and ``title`` (of the family) are cut to what a chart can show; ``marks`` are those of
    `embedcore.report.board.marks` in plain words, ``doubts`` the reasons why the speed cannot be trusted, ``front``
    whether it is on the Pareto front of score and speed, ``taken`` whether it is the recommended model.
    """
    measured = _measured(board)
    columns = page_columns(measured)
    taken = take(board).model if measured else ""
    found = []
    for number, entry in enumerate(measured):
        pretraining = entry.result.pretraining
        row = {
            **scores(entry.result),  # first, since a metric may have any name
            **_values(entry, columns),
            "id": number,
            "cells": [column.cell(entry) for column in columns],
            "name": cut(entry.result.model, _LONGEST),
            "title": cut(entry.title, _LONGEST),
            "pretraining": pretraining and cut(pretraining, _LONGEST),
            "architecture": entry.result.architecture,
            "input": None if (size := input_size(entry.result)) is None else size_text(size),
            "decayed": entry.result.batch_decayed,
            "non_commercial": non_commercial(entry.result),
            "random": entry.result.random_weights,
            "own": entry.result.own or None,
            "marks": mark_words(entry),
            "doubts": "; ".join(doubts(entry.result)) or None,
            "tied": entry.model_rank is not None and entry.model_rank.tied_with_leader,
            "taken": entry.result.model == taken or None,
        }
        found.append({key: value for key, value in row.items() if value is not None and value is not False})
    for row in pareto_front(found, AXES[0], board.headline.first):
        row["front"] = True
    return found


def _measured(board: Leaderboard) -> list[Entry]:
    return [entry for entry in entries(board) if entry.rank]


def _values(entry: Entry, columns: Sequence[Column]) -> Mapping[str, Any]:
    """Return the page's sort keys, and the parts of tuples for its CSV."""
    values: dict[str, Any] = {}
    for column in columns:
        value = column.value(entry)
        if value is not None:
            values |= zip(column.parts, value, strict=True) if column.parts else ()
            values[column.key] = column.sort(value) if column.sort else value
    return values


def columns_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Return the page's data on each column of its table."""
    return [
        {
            "key": column.key,
            "title": column.heading,
            "meaning": column.meaning or column.key,
            "width": column.width,
            "text": column.text,
            "interval": column.interval,
            "descending": column.descending,
            "optional": column.optional,
            "csv": _csv_fields(column),
        }
        for column in page_columns(_measured(board))
    ]


def _csv_fields(column: Column) -> list[str]:
    if column.interval:
        return [column.key, f"{column.key}_low", f"{column.key}_high"]
    if column.key == "model":
        return ["model", "marks"]
    return [*column.parts] or [column.key]


def scores(result: Result) -> Mapping[str, float]:
    """Return each score, and the bounds of its interval if it has one."""
    found = dict(result.scores)
    for metric, (low, high) in result.ci95.items():
        found |= {f"{metric}_low": low, f"{metric}_high": high}
    return found
