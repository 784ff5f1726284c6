"""Ranks with confidence intervals, on one or several datasets, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from tabulate import tabulate

from embedcore.plain import counted, json_safe, wrapped
from embedcore.report.board.captions import dataset_name, lead, units
from embedcore.report.board.columns import interval
from embedcore.report.board.markdown import escape
from embedcore.report.board.marks import TIED
from embedcore.results.ranking import Agreement, ModelRank, Ranking

_MOST_NAMES = 5
_LEGEND = f"ranks: 95 % intervals that hold for all models at once; {TIED} tied for first"


@dataclass(frozen=True)
class Ranked:
    """The ranking on a dataset. `dataset`: its block in the saved JSON."""

    dataset: Mapping[str, Any]
    ranking: Ranking

    @property
    def name(self) -> str:
        return dataset_name(self.dataset)

    @property
    def rows(self) -> list[tuple[ModelRank, float]]:
        """Rank and score of each model, best first."""
        scores = dict(zip(self.ranking.models, self.ranking.order.means.tolist(), strict=True))
        model_ranks = sorted(
            self.ranking.model_ranks().values(), key=lambda model_rank: (model_rank.rank, model_rank.model)
        )
        return [(model_rank, scores[model_rank.model]) for model_rank in model_ranks]


def report(boards: Sequence[Ranked], agreement: Agreement | None, *, width: int, markdown: bool = False) -> str:
    """Return a table for each dataset and the agreement of several. Text, unlike Markdown, is wrapped at `width`."""
    blocks = [_LEGEND]
    for board in boards:
        models, classes = len(board.ranking.models), board.ranking.classes
        heading = f"{board.name}: {counted(models, 'model')}, {counted(classes, *units(board.dataset))}"
        rows = [
            (
                f"{model_rank.rank}{TIED if model_rank.tied_with_leader else ''}",
                interval(model_rank.rank95),
                f"{score:.3f}",
                f"{model_rank.p_best:.2f}",
                model_rank.model,
            )
            for model_rank, score in board.rows
        ]
        blocks += [heading, _table(("#", "ranks", board.ranking.metric, "p best", "model"), rows, markdown)]
        blocks += lead(board.ranking, most_names=_MOST_NAMES)
    blocks += _agreement(boards, agreement, markdown) if agreement else []
    shown = (block if markdown or "\n" in block else wrapped(block, width) for block in blocks)
    return "\n\n".join(shown) + "\n"


def _agreement(boards: Sequence[Ranked], agreement: Agreement, markdown: bool) -> Iterator[str]:
    if not agreement.means:
        yield "the datasets have no model in common"
        return
    names = [board.name for board in boards]
    yield f"agreement on the {len(agreement.means)} models of all datasets (1: same order, -1: reverse order)"
    taus = [(names[a], names[b], "–" if tau is None else f"{tau:.2f}") for (a, b), tau in agreement.taus.items()]
    yield _table(("dataset", "dataset", "Kendall's tau"), taus, markdown)
    yield "mean rank among these models, with a 95 % interval that holds for all of them at once"
    rows = [
        (f"{mean.mean:.1f}", f"{mean.interval[0]:.1f}–{mean.interval[1]:.1f}", *map(str, mean.ranks), mean.model)
        for mean in agreement.means
    ]
    yield _table(("mean rank", "95 %", *names, "model"), rows, markdown)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    shown = [[escape(cell) for cell in row] for row in (headers, *rows)] if markdown else [headers, *rows]
    align = ["left" if header in ("model", "dataset") else "right" for header in headers]
    return tabulate(
        shown[1:], shown[0], tablefmt="pipe" if markdown else "simple", colalign=align, disable_numparse=True
    )


def to_json(boards: Sequence[Ranked], agreement: Agreement | None) -> dict[str, Any]:
    """Return ``datasets`` with their ``ranking`` as in a saved run; ``agreement`` and ``mean_rank`` of several."""
    result: dict[str, Any] = {
        "datasets": [
            {
                "name": board.name,
                "fingerprint": board.dataset.get("fingerprint"),
                "classes": board.ranking.classes,
                "classes_needed": board.ranking.order.classes_needed,
                "ranking": [msgspec.to_builtins(row) | {board.ranking.metric: score} for row, score in board.rows],
            }
            for board in boards
        ]
    }
    if agreement is not None:
        result["agreement"] = [
            {"datasets": [boards[a].name, boards[b].name], "models": len(agreement.means), "kendall_tau": tau}
            for (a, b), tau in agreement.taus.items()
        ]
        result["mean_rank"] = [mean._asdict() for mean in agreement.means]
    safe: dict[str, Any] = json_safe(result)
    return safe
