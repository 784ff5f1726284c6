"""The table of ``embedcore deploy``, and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from tabulate import DataRow, TableFormat, tabulate

from embedcore.compare.deployment import METRIC, USUAL, Deployed, leaders
from embedcore.plain import json_safe, wrapped
from embedcore.report.board.columns import NOTHING, figure, random_notice
from embedcore.report.change_text import signed
from embedcore.results.leaderboard import Row

_COLUMNS: Mapping[str, Callable[[Deployed], str]] = {
    "engine": lambda row: str(row.way),
    "acc": lambda row: f"{row.result.scores[METRIC]:.3f}",
    "change": lambda row: _change(row),
    "drift": lambda row: NOTHING if row.drift is None else f"{row.drift:.0e}",
    "img/s": lambda row: figure(row.result.images_per_s.get("forward")),
    "speed": lambda row: NOTHING if row.speedup is None else f"{row.speedup:.2f}x",
    "p50": lambda row: figure(row.result.latency_ms.get("p50")),
    "p99": lambda row: figure(row.result.latency_ms.get("p99")),
    "MB": lambda row: figure(row.result.weights_mb),
    "peak": lambda row: figure(row.result.peak_memory_mb),
}

_CLOSE = TableFormat(None, None, None, None, DataRow("", " ", ""), DataRow("", " ", ""), 0, None)

_MEANINGS = (
    "change: of acc against eager fp32, * if significant (paired by query, resampled by class, corrected for all "
    "models); drift: distance of the embeddings from those of eager fp32 (0.1: a cosine of about 0.995); img/s: "
    "forward pass of a batch; speed: against eager fp32; p50, p99: milliseconds of one image; MB: the model as the "
    "engine keeps it; peak: megabytes of memory that the process took."
)


def as_text(rows: Sequence[Deployed], width: int) -> str:
    """Return a table of each model, then whether the best model depends on the engine, in lines of `width`."""
    parts = []
    for model, group in groupby(rows, key=lambda row: row.result.model):
        of_model = [*group]
        ok = [row for row in of_model if row.result.ok]
        cells = [[cell(row) for cell in _COLUMNS.values()] for row in ok]
        aligned = ["left", *["right"] * (len(_COLUMNS) - 1)]
        table = tabulate(cells, [*_COLUMNS], tablefmt=_CLOSE, disable_numparse=True, colalign=aligned) if ok else ""
        failed = [
            wrapped(f"{row.way}: {row.result.status}: {row.result.reason}", width)
            for row in of_model
            if not row.result.ok
        ]
        parts.append("\n".join(filter(None, [model, table, *failed])))
    notice = random_notice([Row(1, row.result) for row in rows])
    parts = [notice, *parts] if notice else parts
    return "\n\n".join([*parts, "\n".join(wrapped(line, width) for line in [*_winner(rows), _MEANINGS])])


def _winner(rows: Sequence[Deployed]) -> Iterator[str]:
    best = leaders(rows)
    usual = best.get(USUAL)
    if usual is None or len({row.result.model for row in rows}) < 2:
        return
    others = [f"{model} on {way}" for way, model in best.items() if model != usual]
    if others:
        yield f"The best model changes: {usual} on {USUAL}, but {', '.join(others)}."
    else:
        yield f"The best model is {usual} on every engine."


def _change(row: Deployed) -> str:
    if row.change is None:
        return NOTHING
    sign = "*" if row.change.real else ""
    return f"{signed(-row.change.change, 3)}{sign}"


def as_json(rows: Sequence[Deployed]) -> Any:
    """Return one object a row, as JSON values."""
    return json_safe([dict(_fields(row)) for row in rows])


def _fields(row: Deployed) -> Iterator[tuple[str, Any]]:
    result, change = row.result, row.change
    yield from [("model", result.model), ("engine", row.way.engine), ("precision", row.way.precision)]
    yield from [("status", result.status), ("reason", result.reason), ("acc", result.scores.get(METRIC))]
    if change is not None:
        interval = None if change.low is None or change.high is None else (-change.high, -change.low)
        yield from [("change", -change.change), ("change_ci95", interval)]
        yield from [("p", change.p), ("significant", change.real)]
    yield from [("drift", row.drift), ("images_per_s", result.images_per_s.get("forward")), ("speedup", row.speedup)]
    for name in ("latency_ms", "weights_mb", "peak_memory_mb", "compile_s"):
        yield name, getattr(result, name)
