"""The page of a leaderboard: index.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcore.report.board import captions
from embedcore.report.board.answer import answer, measured_on
from embedcore.report.board.columns import COLUMNS, footnotes
from embedcore.report.board.details import details
from embedcore.report.board.findings import disagreements, facts, findings, warnings
from embedcore.report.board.names import short_names
from embedcore.report.board.rows import columns_data
from embedcore.report.board.trade_off import COSTS
from embedcore.report.gallery.selection import hardest
from embedcore.report.html.chart import HEADLINE_HEIGHT, Chart, extent
from embedcore.report.html.drawing import start_scripts
from embedcore.report.html.page import chart_data, families_of, render, static
from embedcore.report.regret_text import card
from embedcore.results.class_table import ClassTable
from embedcore.results.leaderboard import Leaderboard


@dataclass(frozen=True)
class Unfinished:
    """Progress of a run that is not finished, running or stopped."""

    done: int
    cases: int
    words: str
    """The progress as a sentence, with what is left."""
    reload_s: float | None = None
    """Seconds until the page looks for its next version; None if there will be none."""

    @property
    def percent(self) -> int:
        return 100 * self.done // max(1, self.cases)


HEADLINE = ("Leaders", *COSTS.values())
"""Sections of the charts on the first screen."""
_NARROW = 16
"""Characters of a model's name that a phone shows in one line of the table."""
_MOST_CLASS_FIGURES = 400_000
"""Maximum number of models times classes in the page, for the chart of two models; the best models are kept."""


def index_page(
    board: Leaderboard,
    rows: Sequence[dict[str, Any]],
    table: ClassTable | None,
    drawn: Sequence[Chart],
    *,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    when: str | None,
    beside: Sequence[str],
    pages: Mapping[str, str],
    here: str,
    unfinished: Unfinished | None,
    retrieved: Mapping[str, Any] | None,
) -> str:
    """Return the page of one dataset.

    `rows`: those of `embedcore.report.board.rows`; `beside`: files that the page links to; `pages`: name to title of
    the pages of all datasets, if there are several, with this one at `here`; `retrieved`: its `gallery_data`.
    """
    name = captions.dataset_name(board.dataset)
    reload_s = unfinished.reload_s if unfinished else None
    intervals = captions.has_intervals(board.dataset)
    marks = footnotes(board.by_acc, COLUMNS) if rows else []
    columns = columns_data(board)
    ranges = {column["key"]: extent(rows, column["key"]) for column in columns if column["interval"]}
    if intervals and any("acc_low" in row for row in rows):
        listed = ", ".join(f"{metric} from {low:.3f} to {high:.3f}" for metric, (low, high) in ranges.items())
        marks.append(f"bars are 95 % intervals ({listed})")
    base = {
        "models": rows,
        "columns": columns,
        "families": families_of(rows),
        "ranges": ranges,
        "metrics": board.headline,
        "short": [
            short if short != row["model"] else None
            for row, short in zip(rows, short_names([row["model"] for row in rows], _NARROW), strict=True)
        ],
    }
    sections = list(dict.fromkeys(chart.section for chart in drawn))
    return render(
        "index.html.j2",
        title=f"{f'{unfinished.percent} % · ' if unfinished else ''}{name}: embedcore report",
        data={
            "data": base | {"intervals": intervals, "name": name},
            "charts": {"charts": [chart_data(chart) for chart in drawn]},
            "details": details(board, table) | _class_figures(rows, table),
            **({"retrieved": retrieved} if retrieved else {}),
        },
        scripts=[
            *map(static, ("tabulator.min.js", "charts.js", "page.js", *(["live.js"] if reload_s else []))),
            start_scripts()(),
        ],
        styles=[static("tabulator.min.css"), static("page.css")],
        name=name,
        facts=facts(board, settings, machine, when),
        warnings=warnings(board),
        findings=findings(board),
        disagreements=[] if board.unlabelled else disagreements(rows, table),
        answer=answer(board),
        metrics=board.headline,
        unlabelled=board.unlabelled,
        regret=card(board, table),
        hardest=hardest(retrieved) if retrieved else None,
        headline_height=HEADLINE_HEIGHT,
        headline=[section for section in sections if section in HEADLINE],
        sections=[section for section in sections if section not in HEADLINE],
        marks=marks,
        legend=captions.explanations(board, settings, machine, when),
        credits=captions.credits(board.dataset),
        excluded=[captions.exclusion_line(exclusion, board) for exclusion in board.excluded],
        missing=captions.missing_lines(settings),
        missing_heading=captions.MISSING,
        beside=beside,
        pages=pages,
        here=here,
        measured=measured_on(board) if rows else "",
        unfinished=unfinished,
        reload_s=reload_s,
        retrieved=retrieved is not None,
    )


def _class_figures(rows: Sequence[dict[str, Any]], table: ClassTable | None) -> dict[str, Any]:
    """Return names and number of queries of the classes, and how many of them the best models get right."""
    if table is None:
        return {"classes": [], "queries": [], "right": {}}
    most = max(2, _MOST_CLASS_FIGURES // len(table.names))
    models = [row["model"] for row in rows if row["model"] in table.models][:most]
    return {
        "classes": table.names,
        "queries": table.queries.tolist(),
        "right": {model: table.first[table.models[model]].tolist() for model in models},
    }
