"""Leaderboards and ranks of runs as DataFrames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from embedcore.errors import UsageError
from embedcore.frames import import_pandas
from embedcore.notebook.shown_run import as_run
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.columns import Column, Entry, columns_of, entries
from embedcore.report.board.rows import scores
from embedcore.results.headline import headline_scores
from embedcore.results.leaderboard import boards_of
from embedcore.results.merge import check_alike
from embedcore.results.ranking import RANKED, agree, rank_models
from embedcore.results.result import Result
from embedcore.results.run import Run

_Measured = tuple[Mapping[str, Any], list[Result]]
"""A dataset's block of the saved JSON, with the results on it."""


def leaderboard(run: Run | str | os.PathLike[str]) -> Any:
    """Return all models of a run (or of its path) as a DataFrame, the best first, those not measured last.

    A row has the columns of the report (``rank``; ``rank95_low`` and ``rank95_high``, the 95 % interval of the rank;
    ``tied_with_leader``, ``model``, ``params_m``, ``images_per_s``, …), each score with its interval (``acc``,
    ``acc_low``, ``acc_high``), ``status`` and ``reason``; with several datasets also ``dataset``. Missing values are
    NaN. Raises UsageError for a file that is not a run.
    """
    listed = boards_of(as_run(run))
    rows = [
        ({"dataset": dataset_name(board.dataset)} if len(listed) > 1 else {}) | _row(entry, columns_of(board.headline))
        for board in listed
        for entry in entries(board)
    ]
    frame = import_pandas().DataFrame(rows)
    counts = [name for name in frame.columns if name.startswith("rank")]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _row(entry: Entry, columns: Sequence[Column]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in columns:
        value = column.value(entry)
        if column.sparse and value is None:
            continue
        if column.parts:
            row |= zip(column.parts, value or (None,) * len(column.parts), strict=True)
        else:
            row[column.key] = value
            row |= {f"{column.key}_{end}": None for end in ("low", "high") if column.interval}
    return row | dict(scores(entry.result)) | {"status": entry.result.status, "reason": entry.result.reason}


def rank(*runs: Run | str | os.PathLike[str], metric: str | None = None) -> Any:
    """Return the ranks of the models of one or several runs (or their paths) as a DataFrame, best first.

    Models that were measured on one dataset are ranked together: columns ``model``, ``rank`` (ties share one), its 95 %
    interval from ``rank_low`` to ``rank_high``, which holds for all models at once, ``tied`` (for first), ``p_best``
    (probability of being the best), and the score with its interval (``acc``, ``acc_low``, ``acc_high``).

    With several datasets the models common to all are ranked by their mean rank: columns ``model``, ``mean_rank`` with
    ``low`` and ``high``, and the rank on each dataset.

    metric: ``acc`` (default), ``acc5``, ``hit5``, or the score of a probe, such as ``probe_ridge``; without labels
    ``view_recall`` (default) or ``view_recall5``.

    Raises UsageError if a model cannot be ranked, if runs on one dataset differ in settings or versions, and for a
    model that is in two of them.
    """
    if metric not in (None, *RANKED):
        raise UsageError(f"metric is {metric!r}: ranks have intervals by {', '.join(RANKED)}")
    if len(runs) == 1 and isinstance(runs[0], list | tuple):
        runs = tuple(runs[0])
    measured = _measured([as_run(run) for run in runs])
    if not measured:
        raise UsageError("no model was measured in these runs")
    metric = metric or headline_scores(measured[0][0]).first
    pandas = import_pandas()
    if len(measured) == 1:
        return pandas.DataFrame(_ranks(*measured[0], metric))
    names = [dataset_name(block) for block, _ in measured]
    rows = [
        {
            "model": mean.model,
            "mean_rank": mean.mean,
            "low": mean.interval[0],
            "high": mean.interval[1],
            **dict(zip(names, mean.ranks, strict=True)),
        }
        for mean in agree(measured, metric).means
    ]
    return pandas.DataFrame(rows, columns=["model", "mean_rank", "low", "high", *names])


def _ranks(block: Mapping[str, Any], results: Sequence[Result], metric: str) -> list[dict[str, Any]]:
    of_model = {result.model: result for result in results}
    ranking = rank_models(results, block, (metric,))[metric]
    ordered = sorted(ranking.model_ranks().values(), key=lambda each: (each.rank, each.model))
    names = (metric, f"{metric}_low", f"{metric}_high")
    return [
        {
            "model": each.model,
            "rank": each.rank,
            "rank_low": each.rank95[0],
            "rank_high": each.rank95[1],
            "tied": each.tied_with_leader,
            "p_best": each.p_best,
            **{name: scores(of_model[each.model]).get(name) for name in names},
        }
        for each in ordered
    ]


def _measured(runs: Sequence[Run]) -> list[_Measured]:
    """Return each dataset with its results in all runs. Raises UsageError."""
    found: dict[str, _Measured] = {}
    first: dict[str, Run] = {}
    for run in runs:
        for block, results in run.by_dataset():
            fingerprint = str(block.get("fingerprint"))
            if not results:
                continue
            if fingerprint in first:
                check_alike(first[fingerprint].on(block), run.on(block))
            first.setdefault(fingerprint, run)
            known = found.setdefault(fingerprint, (block, []))[1]
            twice = {result.model for result in known} & {result.model for result in results}
            if twice:
                raise UsageError(
                    f"{min(twice)} is in two of these runs on {dataset_name(block)}: compare(a, b) compares"
                )
            known += results
    return [*found.values()]
