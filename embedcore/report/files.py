"""The report folder: leaderboard.md for people, .csv for spreadsheets, .json for programs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.plain import json_safe
from embedcore.report.markdown import markdown_report
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.result import Result
from embedcore.results.run import embedcore_block

# What a spreadsheet would take for the beginning of a formula; with East Asian settings the wide forms too.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

# Kept in the saved run only: thousands of characters a row that no reader of a leaderboard can use.
_NOT_IN_REPORTS = ("detail", "verdicts", "sketch", "durations")

_COLUMNS: tuple[tuple[str, Callable[[Result], object]], ...] = (
    ("model", lambda r: r.model),
    ("architecture", lambda r: r.architecture),
    ("tag", lambda r: r.tag),
    ("family", lambda r: r.family),
    ("status", lambda r: r.status),
    ("reason", lambda r: r.reason),
    ("pretraining", lambda r: r.pretraining),
    ("licence", lambda r: r.licence),
    ("params_m", lambda r: r.params_m),
    ("gmacs", lambda r: r.gmacs),
    ("input_height", lambda r: r.input_size and r.input_size[1]),
    ("input_width", lambda r: r.input_size and r.input_size[2]),
    ("dim", lambda r: r.dim),
    ("point", lambda r: r.point),
    ("token_mean", lambda r: r.token_mean),
    ("precision", lambda r: r.precision),
    ("batch_size", lambda r: r.batch_size),
    ("batch_decayed", lambda r: r.batch_decayed),
    ("device", lambda r: r.device),
    ("weights_source", lambda r: r.weights.get("source")),
    ("weights_id", lambda r: r.weights.get("id")),
    ("images_per_s_forward", lambda r: r.images_per_s.get("forward")),
    ("images_per_s_end_to_end", lambda r: r.images_per_s.get("end_to_end")),
    ("peak_memory_mb", lambda r: r.peak_memory_mb),
    ("measured_s", lambda r: r.measured_s),
)

_RANKS = ("rank", "rank_acc5", "rank_in_family")


def write_report(directory: Path, board: Leaderboard, *, settings: Mapping[str, Any] | None = None) -> list[Path]:
    """Write leaderboard.md, leaderboard.csv and leaderboard.json into `directory`, which is made if it is missing.

    Each file is whole or not there: it is written under another name and renamed. Returns the paths. Raises UsageError
    if the folder cannot be made or written.
    """
    contents = {
        "leaderboard.md": markdown_report(board, settings=settings),
        "leaderboard.csv": csv_report(board),
        "leaderboard.json": json_report(board, settings=settings),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [write_atomically(directory / name, text) for name, text in contents.items()]
    except OSError as error:
        raise UsageError(
            f"report folder {directory} cannot be written: {error.strerror or error}; "
            "give --embed-report a folder that can"
        ) from error


def write_atomically(path: Path, text: str) -> Path:
    """Write `text` to `path` as UTF-8, so that a reader sees the old file or the new one. Raises OSError.

    A link in the place of `path` is replaced, not followed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process, or a link that somebody planted
        with temporary.open("xb") as stream:
            stream.write(text.encode())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path


def csv_report(board: Leaderboard) -> str:
    """One row a result, measured or not, overall best first: ranks, fields, and each score with its low and high."""
    results = [row.result for row in board.by_acc] + list(board.excluded_results)
    metrics = list(dict.fromkeys(metric for result in results for metric in result.scores))
    ranks = _ranks(board)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    scores = [name for metric in metrics for name in (metric, f"{metric}_low", f"{metric}_high")]
    writer.writerow([guarded(name) for name in (*_RANKS, *(name for name, _ in _COLUMNS), *scores)])
    for result in results:
        cells: list[object] = [*ranks.get(id(result), (None, None, None)), *(value(result) for _, value in _COLUMNS)]
        for metric in metrics:
            cells += [result.scores.get(metric), *result.ci95.get(metric, (None, None))]
        writer.writerow([guarded(cell) for cell in cells])
    return out.getvalue()


def guarded(cell: object) -> object:
    """`cell`, with an apostrophe before text that a spreadsheet would run as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def json_report(board: Leaderboard, *, settings: Mapping[str, Any] | None = None) -> str:
    """``schema``, ``settings``, ``dataset``, ``rows`` (overall best first, with their ranks) and ``excluded``."""
    block = embedcore_block(settings=settings or {}, dataset=board.dataset, excluded=board.excluded_results)
    ranks = _ranks(board)
    block["rows"] = [
        dict(zip(_RANKS, ranks[id(row.result)], strict=True))
        | {key: value for key, value in row.result.extra_info().items() if key not in _NOT_IN_REPORTS}
        for row in board.by_acc
    ]
    return json.dumps(json_safe(block), indent=1, allow_nan=False) + "\n"


def _ranks(board: Leaderboard) -> dict[int, tuple[int, int, int]]:
    """Of each measured result, by its identity: rank by acc, rank by acc5, rank in its family by acc."""
    by_acc5 = {id(row.result): row.rank for row in board.by_acc5}
    in_family = {id(row.result): row.rank for group in board.groups for row in group.rows}
    return {id(row.result): (row.rank, by_acc5[id(row.result)], in_family[id(row.result)]) for row in board.by_acc}
