"""The page of a leaderboard: index.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedcore.report.board import captions
from embedcore.report.board.details import details
from embedcore.report.board.findings import disagreements, facts, findings, warnings
from embedcore.report.gallery.gallery import page_data
from embedcore.report.html.chart import Chart
from embedcore.report.html.drawing import scripts_begun
from embedcore.report.html.page import chart_data, families_of, render, static
from embedcore.results.class_table import ClassTable
from embedcore.results.leaderboard import Leaderboard

if TYPE_CHECKING:
    from embedcore.report.gallery.albums import Shown


@dataclass(frozen=True)
class Unfinished:
    """How far a run is that is not finished: it goes on, or it was stopped."""

    done: int
    cases: int
    words: str
    """In words, with what is left."""
    reload_s: float | None = None
    """In how many seconds the page is to look for its next version; None where there will be none."""

    @property
    def percent(self) -> int:
        return 100 * self.done // max(1, self.cases)


_MOST_CLASS_FIGURES = 400_000
"""Of models times classes in the page, for the chart of two models; those of the best models are kept."""


def index_page(
    board: Leaderboard,
    rows: Sequence[dict[str, Any]],
    table: ClassTable | None,
    drawn: Sequence[Chart],
    *,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    when: str | None = None,
    beside: Sequence[str] = (),
    pages: Mapping[str, str] | None = None,
    here: str = "",
    files: Mapping[str, Sequence[str]] | None = None,
    unfinished: Unfinished | None = None,
    retrieved: Shown | None = None,
) -> str:
    """The page of one dataset. `beside`: files that are linked; `pages`: the pages of all datasets, address to title,
    where there are several, this one at `here`; `files`: those of a chart by its name; `unfinished`: of a run that is
    not finished; `retrieved`: what the models find."""
    name = captions.dataset_name(board.dataset)
    reload_s = unfinished.reload_s if unfinished else None
    explained = captions.legend(board, settings, machine, when)[1 + len(captions.credits(board.dataset)) :]
    intervals = captions.has_intervals(board.dataset)
    return render(
        "index.html.j2",
        title=f"{f'{unfinished.percent} % · ' if unfinished else ''}{name}: embedcore report",
        data={
            "data": {"models": rows, "families": families_of(rows), "intervals": intervals, "name": name},
            "charts": {"charts": [chart_data(chart, (files or {}).get(chart.name, ())) for chart in drawn]},
            "details": {"details": details(board, table), **_class_figures(rows, table)},
            **({"retrieved": page_data(retrieved.gallery, retrieved.pictures)} if retrieved else {}),
        },
        scripts=[
            *map(static, ("tabulator.min.js", "charts.js", "page.js", *(["live.js"] if reload_s else []))),
            scripts_begun()(),
        ],
        styles=[static("tabulator.min.css"), static("page.css")],
        name=name,
        facts=facts(board, settings, machine, when),
        warnings=warnings(board),
        findings=findings(board),
        disagreements=[each.why for each in disagreements(rows, table)] if len(rows) > 1 else [],
        sections=list(dict.fromkeys(chart.section for chart in drawn)),
        legend=explained,
        credits=captions.credits(board.dataset),
        excluded=[captions.exclusion_line(exclusion) for exclusion in board.excluded],
        missing=captions.missing_lines(settings),
        beside=beside,
        pages=pages or {},
        here=here,
        measured=len(rows),
        unfinished=unfinished,
        reload_s=reload_s,
        retrieved=retrieved is not None,
    )


def _class_figures(rows: Sequence[dict[str, Any]], table: ClassTable | None) -> dict[str, Any]:
    """Names and queries of the classes, and how many queries of each class the best models get right."""
    if table is None:
        return {"classes": [], "queries": [], "right": {}}
    most = max(2, _MOST_CLASS_FIGURES // len(table.names))
    models = [row["model"] for row in rows if row["model"] in table.models][:most]
    return {
        "classes": table.names,
        "queries": table.queries.tolist(),
        "right": {model: table.first[table.models[model]].tolist() for model in models},
    }
