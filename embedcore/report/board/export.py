"""Leaderboards for other programs: leaderboard.csv and leaderboard.json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from embedcore.plain import json_safe, one_line
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.columns import COLUMNS, Entry, columns_of, entries
from embedcore.results.leaderboard import Leaderboard, build
from embedcore.results.result import Result
from embedcore.results.saved import embedcore_block

# Spreadsheets take these for the beginning of a formula; with East Asian settings the full-width forms too.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

# Only in the saved run: thousands of characters that are of no use in a leaderboard.
_NOT_IN_ROWS = ("detail", "verdicts", "probe_verdicts", "sketch", "durations", "processes")
_IN_ROWS = [name for name in Result.__struct_fields__ if name not in _NOT_IN_ROWS]
_NOT_IN_DATASET = ("query_classes", "reference_classes", "roles", "lone_classes", "class_names", "class_references")

_IN_PARTS = {column.key: column for column in COLUMNS if column.parts}
_MACHINE = ("processor", "gpu", "timm", "torch")
_ALWAYS = {"weights": ("source", "id"), "images_per_s": ("forward", "end_to_end")}
"""Keys of these fields that always have a column in the CSV."""


def csv_report(boards: Sequence[Leaderboard], machine: Mapping[str, Any], when: str | None = None) -> str:
    """Return one line for each result, best first, those not measured last: ranks, fields, scores with their bounds."""
    common = {key: machine.get(key) for key in _MACHINE} | {"datetime": when}
    # An empty result has all columns, so that a CSV without lines has them too.
    none = Result.make("-", family="-", status="error", reason="-")
    empty = build([none], dataset=boards[0].dataset if boards else {})
    cells = [_cells(entry, row, common) for board in (empty, *boards) for entry, row in _rows(board)]
    names = list(dict.fromkeys(name for row in cells for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(guarded, names))
    writer.writerows([guarded(row.get(name)) for name in names] for row in cells[1:])
    return out.getvalue()


def guarded(cell: object) -> object:
    """Return `cell`; text on one line, with an apostrophe if a spreadsheet would evaluate it as a formula.

    >>> guarded("\\t=1+1"), guarded("a\\r=1+1"), guarded(-1)
    ("'=1+1", 'a =1+1', -1)
    """
    if not isinstance(cell, str):
        return cell
    text = one_line(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def json_report(
    boards: Sequence[Leaderboard], settings: Mapping[str, Any], machine: Mapping[str, Any], when: str | None = None
) -> str:
    """Return ``schema``, ``settings``, ``machine``, ``datetime``, ``dataset``, ``rows`` (overall best first, with their
    ranks) and ``excluded``. ``dataset`` is the first one; ``datasets`` has all if there are several."""
    datasets = [{key: value for key, value in b.dataset.items() if key not in _NOT_IN_DATASET} for b in boards]
    block = embedcore_block(settings=settings, datasets=datasets, excluded=())
    block |= {"machine": machine, "datetime": when}
    block["rows"] = [row for board in boards for entry, row in _rows(board) if entry.result.ok]
    block["excluded"] = [
        result.excluded_info() | {"dataset": dataset_name(board.dataset)}
        for board in boards
        for result in board.excluded_results
    ]
    return _text(block)


def _text(block: Mapping[str, Any]) -> str:
    """Return strict JSON with a line for each key, and for each result."""
    parts = []
    for key, value in block.items():
        if key in ("rows", "excluded") and value:
            text = "[\n" + ",\n".join(msgspec.json.encode(row).decode() for row in value) + "\n]"
        else:
            text = json.dumps(json_safe(value), allow_nan=False)
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rows(board: Leaderboard) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Yield each result, measured or not, with the columns that no field holds followed by its fields."""
    columns = columns_of(board.headline)
    for entry in entries(board):
        computed = {column.key: column.value(entry) for column in columns if not column.stored}
        whole = msgspec.to_builtins(entry.result)
        fields = {name: whole[name] for name in _IN_ROWS}
        if entry.result.ok:
            fields.pop("reason", None)
        if entry.result.distractors is None:
            del fields["distractors"]
        else:
            del fields["distractors"]["beaten_by"]
        yield entry, computed | fields | {"dataset": dataset_name(board.dataset)}


def _cells(entry: Entry, row: Mapping[str, Any], common: Mapping[str, object]) -> dict[str, object]:
    """Return a flat line of the CSV. `common`: cells that all lines share."""
    cells: dict[str, object] = {}
    for name, value in row.items():
        if name in _IN_PARTS:
            parts = _IN_PARTS[name].parts
            cells |= zip(parts, _IN_PARTS[name].value(entry) or [None] * len(parts), strict=True)
        elif isinstance(value, Mapping) and name not in ("scores", "ci95", "distractors"):
            cells |= {f"{name}_{key}": value.get(key) for key in dict.fromkeys((*_ALWAYS.get(name, ()), *value))}
        elif not isinstance(value, Mapping):
            cells[name] = value
    cells |= common
    for metric, value in row["scores"].items():
        low, high = row["ci95"].get(metric, (None, None))
        cells |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
    for metric, bounds in entry.result.gallery_scores.items():
        cells |= zip((metric, f"{metric}_low", f"{metric}_high"), bounds, strict=True)
    return cells
