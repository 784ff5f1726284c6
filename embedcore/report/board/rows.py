"""The rows of the page's table and charts: what a result has, flat, under short names, None for what it has not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedcore.report.board.columns import cut, input_size, non_commercial, weights_source
from embedcore.results.leaderboard import Leaderboard, Row
from embedcore.results.result import Result

_LONGEST = 80  # characters; the longest name of timm 1.0.31 has 56


def rows(board: Leaderboard) -> list[dict[str, Any]]:
    """One a measured model, the best by acc first.

    ``id`` is its place in the list, ``part`` the heading of its part of its family's leaderboard; ``name``, ``title``
    (of the family) and ``pretraining`` are no longer than a chart can show. Scores are under their names, the ends of
    their intervals under ``acc_low`` and ``acc_high``.
    """
    titles = {group.slug: group.title for group in board.groups}
    parts = {id(row.result): heading for group in board.groups for heading, members in group.parts for row in members}
    by_acc5 = {id(row.result): row for row in board.by_acc5}
    in_family = {id(row.result): row for group in board.groups for row in group.rows}
    return [
        _fields(row.result)
        | _ranks(row, by_acc5[id(row.result)], in_family[id(row.result)])
        | {
            "id": number,
            "name": cut(row.result.model, _LONGEST),
            "title": cut(titles[row.result.family], _LONGEST),
            "part": parts[id(row.result)],
        }
        for number, row in enumerate(board.by_acc)
    ]


def _ranks(row: Row, by_acc5: Row, in_family: Row) -> dict[str, Any]:
    ranks: dict[str, Any] = {"rank": row.rank, "rank_acc5": by_acc5.rank, "rank_in_family": in_family.rank}
    if row.standing is not None:
        low, high = row.standing.rank95
        ranks |= {"rank_low": low, "rank_high": high, "p_best": row.standing.p_best}
    return ranks | {
        "tied": row.standing is not None and row.standing.tied_with_leader,
        "tied_acc5": by_acc5.standing is not None and by_acc5.standing.tied_with_leader,
    }


def _fields(result: Result) -> dict[str, Any]:
    return {
        **scores(result),  # first, since a metric may have any name
        "model": result.model,
        "family": result.family,
        "architecture": result.architecture,
        "params": result.params_m,
        "gmacs": result.gmacs,
        "speed": result.images_per_s.get("forward"),
        "end_to_end": result.images_per_s.get("end_to_end"),
        "decayed": result.batch_decayed,
        "memory": result.peak_memory_mb,
        "dim": result.dim,
        "input": input_size(result),
        "edge": max(result.input_size[1:]) if result.input_size else None,
        "pretraining": result.pretraining and cut(result.pretraining, _LONGEST),
        "licence": result.licence,
        "non_commercial": non_commercial(result),
        "weights": weights_source(result),
        "random": result.random_weights,
    }


def scores(result: Result) -> Mapping[str, float]:
    """Each score, and the ends of its interval where it has one."""
    found = dict(result.scores)
    for metric, (low, high) in result.ci95.items():
        found |= {f"{metric}_low": low, f"{metric}_high": high}
    return found
