"""How far acc and acc5 agree on the order of the models, and why they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from embedcore.report.classes import FEW, ClassTable
from embedcore.report.findings import Named, Sentence

_MOST = 3  # in each direction


class Disagreement(NamedTuple):
    """A model that one of the two puts much higher than the other."""

    row: dict[str, Any]
    why: Sentence


def kendall_tau(rows: Sequence[dict[str, Any]]) -> float | None:
    """Kendall's tau-b of acc and acc5 over n models: 1 is the same order, -1 the reverse. None for less than two, and
    where all are equal in one of them.

    As scipy has it, whose import would take longer than the [n, n] comparisons.
    """
    import numpy as np

    acc, acc5 = (np.array([row[metric] for row in rows]) for metric in ("acc", "acc5"))
    by_acc, by_acc5 = np.sign(acc[:, None] - acc), np.sign(acc5[:, None] - acc5)
    pairs = np.count_nonzero(by_acc) * np.count_nonzero(by_acc5)
    return float((by_acc * by_acc5).sum() / np.sqrt(pairs)) if pairs else None


def disagreements(rows: Sequence[dict[str, Any]], table: ClassTable | None) -> list[Disagreement]:
    """The models whose ranks by acc and by acc5 are farthest apart, at most `_MOST` in each direction, each with what
    is known of the reason."""
    by_gap = sorted(rows, key=lambda row: row["rank_acc5"] - row["rank"])
    higher_by_acc5 = [row for row in by_gap[:_MOST] if row["rank_acc5"] < row["rank"]]
    higher_by_acc = [row for row in by_gap[::-1][:_MOST] if row["rank_acc5"] > row["rank"]]
    return [Disagreement(row, _why(row, table)) for row in (*higher_by_acc, *higher_by_acc5)]


def _why(row: dict[str, Any], table: ClassTable | None) -> Sentence:
    head = Named(row["model"]), f": {_ordinal(row['rank'])} by acc and {_ordinal(row['rank_acc5'])} by acc5"
    shares = table.where_references_are_few(row["model"]) if table and row["model"] in table.models else None
    if shares is None:
        return *head, "."
    few, few_of_all, many, many_of_all = shares
    return (
        *head,
        f". In classes of fewer than {FEW} references its acc is {_than(few, few_of_all)}, "
        f"in the others {_than(many, many_of_all)}.",
    )


def _than(value: float, mean: float) -> str:
    return f"{value:.3f} ({value - mean:+.3f} against the mean of all models)"


def _ordinal(number: int) -> str:
    """
    >>> [_ordinal(n) for n in (1, 2, 3, 11, 22, 113)]
    ['1st', '2nd', '3rd', '11th', '22nd', '113th']
    """
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
