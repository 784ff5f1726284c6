"""A history of saved runs as a self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from embedcore.compare.history import History, Step, Trend
from embedcore.compare.series import ALL, WHATS, Series
from embedcore.plain import minute
from embedcore.report.board.columns import NOTHING
from embedcore.report.history import history_text as words
from embedcore.report.html.chart import HEIGHT, Chart, alt, layered
from embedcore.report.html.page import lists_page
from embedcore.report.html.theme import COLOURS, SHAPES, theme_of
from embedcore.zoo.families import family_of_slug

MOST_SERIES = 40
"""Maximum of series in a chart; those that changed most are shown."""

_TITLES: Mapping[str, tuple[str, str]] = {
    "acc": ("Accuracy", "acc"),
    "images_per_s": ("Speed", "images/s, change since the first run in %"),
    "memory": ("Memory", "peak memory, change since the first run in %"),
    "drift": ("Embeddings", "drift since the run before"),
}
_RELATIVE = ("images_per_s", "memory")
"""Drawn relative to the first run, since the levels of models are far apart."""
_VERSIONS = ("timm", "torch", "cuda", "driver", "gpu", "processor", "python")


def history_page(history: History, shown: Sequence[Series], name: str) -> str:
    """Return the page of the series `shown`, of models or families, with all steps. `name`: of the history."""
    runs = history.runs
    by_family = all(series.of_family for series in shown)
    choices = _choices(shown, by_family=by_family)
    themes = {choice["slug"]: choice for choice in choices}
    steps = [
        (run.name, minute(run.datetime), words.news_of(history, of), [_step(s, by_family=by_family) for s in of])
        for place, same in groupby(history.steps, key=lambda step: step.run)
        for run, of in [(runs[place], list(same))]
    ]
    return lists_page(
        "history.html.j2",
        title=f"{name}: embedcore history",
        rows=[],
        choices=choices,
        drawn=charts(history, shown, themes),
        heading=name,
        lead=words.summary(history),
        facts=_facts(history),
        trends=[_trend(history, one, by_family=by_family) for one in history.trends],
        steps=steps,
        group="Family" if by_family else "Model",
        groups="Families" if by_family else "Models",
        series=[
            (words.name_of(of[0]), _group(of[0]), [_row(series) for series in of])
            for _, same in groupby(shown, key=words.name_of)
            for of in [list(same)]
        ],
        run_heads=["", "saved at", "name", "steps", "commit", *_present(history)],
        run_rows=list(_run_rows(history)),
        legend=_LEGEND,
    )


_LEGEND = (
    "A trend is a steady rate over at least six runs. It moves speed or memory by more than the limit and by more than "
    "chance or steps explain. acc has a trend if it also differs significantly between its first and last run.",
    "Speed or memory makes a step if the medians of up to three runs before and after differ by more than the limit "
    "and by more than chance explains. acc makes a step if a paired test of two consecutive runs is significant. Drift "
    "makes a step if it exceeds the limit and rounding errors.",
    "Runs that cannot be compared, for example of two machines, are separate series.",
    "The series of a family is the mean over its models (acc, drift) or their geometric mean (speed, memory). When the "
    "set of models changes, it continues with the change of the models that both runs have.",
)


def _facts(history: History) -> list[tuple[str, str]]:
    runs = history.runs
    machines = dict.fromkeys(run.processor for run in runs if run.processor)
    return [
        ("Runs", f"{len(runs):,}"),
        ("Oldest", minute(runs[0].datetime)),
        ("Newest", minute(runs[-1].datetime)),
        ("Measured on", "; ".join(machines) or NOTHING),
        ("Trends that last", f"{sum(trend.run == len(runs) - 1 for trend in history.trends):,}"),
        ("Steps in the newest run", f"{sum(step.run == len(runs) - 1 for step in history.steps):,}"),
    ]


def _present(history: History) -> list[str]:
    return [key for key in _VERSIONS if any(run.versions.get(key) for run in history.runs)]


def _run_rows(history: History) -> Iterator[list[str]]:
    """Yield a row for each run, newest first."""
    present = _present(history)
    for place, run in reversed(list(enumerate(history.runs))):
        steps = sum(step.run == place for step in history.steps)
        facts = [f"{place + 1}", minute(run.datetime), run.name, f"{steps or ''}", (run.commit or NOTHING)[:10]]
        yield [*facts, *(str(run.versions.get(key) or NOTHING) for key in present)]


def _group(series: Series) -> str:
    return series.family if series.of_family else series.name


def _choices(shown: Sequence[Series], *, by_family: bool) -> list[dict[str, Any]]:
    """Return slug, title, colour and shape of each group; models get colours and shapes in order."""
    choices: dict[str, dict[str, Any]] = {}
    for series in shown:
        group, number = _group(series), len(choices)
        if by_family:
            title = ALL if series.name == ALL else family_of_slug(series.family).title
            colour, shape = theme_of(series.family)
        else:
            title = series.name
            colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number // len(COLOURS) % len(SHAPES)]
        choices.setdefault(group, {"slug": group, "title": title, "colour": colour, "shape": shape})
    return list(choices.values())


def _step(step: Step, *, by_family: bool) -> dict[str, Any]:
    alone = "this run only, one process" if step.weak else "this run only"
    return _change(step, by_family=by_family) | {"seen": alone if step.runs_after == 1 else f"{step.runs_after} runs"}


def _trend(history: History, trend: Trend, *, by_family: bool) -> dict[str, Any]:
    news = words.trend_news(history, trend)
    row = _change(trend, by_family=by_family) | {"rate": words.rate_words(trend), "seen": f"{trend.runs} runs"}
    return row | {"reasons": [news, *trend.causes]}


def _change(one: Step | Trend, *, by_family: bool) -> dict[str, Any]:
    series = one.series
    drift = series.what == "drift"
    return {
        "name": words.name_of(series),
        "group": series.family if by_family else series.name,
        "what": f"{series.what}, one thread" if series.pinned else series.what,
        "base": "" if drift else words.value_words(series, one.base),
        "new": "" if drift else words.value_words(series, one.new),
        "change": words.change_words(one),
        "worse": one.worse and not drift,
        "reasons": one.causes,
    }


def _row(series: Series) -> dict[str, str]:
    values = [point.value for point in series.points]
    return {
        "what": series.what,
        "runs": f"{len(values)}",
        "first": words.value_words(series, values[0]),
        "last": words.value_words(series, values[-1]),
        "course": words.sparkline(values[-words.LONGEST_LINE :]),
    }


def charts(history: History, shown: Sequence[Series], themes: Mapping[str, Mapping[str, Any]]) -> list[Chart]:
    """Return a chart of each quantity; the parameter ``family`` holds the highlighted group."""
    with alt.utils.schemapi.debug_mode(False):
        found = [_chart(history, [s for s in shown if s.what == what], what, themes) for what in WHATS]
    return [chart for chart in found if chart is not None]


def _chart(
    history: History, series: Sequence[Series], what: str, themes: Mapping[str, Mapping[str, Any]]
) -> Chart | None:
    several = [one for one in series if sum(math.isfinite(point.value) for point in one.points) > 1]
    kept = sorted(several, key=_relative_range, reverse=True)[:MOST_SERIES]
    if not kept:
        return None
    steps = {(words.key_of(step.series), step.run) for step in history.steps}
    rows = [
        {
            "place": point.run + 1,
            "group": _group(one),
            "name": themes[_group(one)]["title"],
            "value": point.value,
            "drawn": 100 * (point.value / one.points[0].value - 1) if what in _RELATIVE else point.value,
            "series": number,
            "step": (words.key_of(one), point.run) in steps,
            "trend": words.in_trend(history, one, point.run),
            "saved": history.runs[point.run].name,
            "day": minute(history.runs[point.run].datetime),
        }
        for number, one in enumerate(kept)
        for point in one.points
        if math.isfinite(point.value)
    ]
    groups = list(dict.fromkeys(_group(one) for one in kept))
    scale = alt.Scale(domain=groups, range=[themes[group]["colour"] for group in groups])
    shapes = alt.Scale(domain=groups, range=[themes[group]["shape"] for group in groups])
    section, title = _TITLES[what]
    base = alt.Chart(alt.NamedData(name="points")).encode(
        x=alt.X(
            "place:Q", title="run", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False, padding=14)
        ),
        y=alt.Y("drawn:Q", title=title, scale=alt.Scale(zero=False, padding=14)),
        color=alt.Color("group:N", scale=scale),
        detail="series:N",
        opacity=alt.condition("!family || datum.group == family", alt.value(0.95), alt.value(0.1)),
        tooltip=[
            *(alt.Tooltip(f"{key}:N") for key in ("name", "saved", "day")),
            alt.Tooltip("value:Q", title=what, format=".4~g"),
        ],
    )
    points = base.mark_point(filled=True, size=45).encode(shape=alt.Shape("group:N", scale=shapes))
    layers = [base.mark_line(strokeWidth=1.8), points]
    if any(row["trend"] for row in rows):
        layers.insert(0, base.transform_filter("datum.trend").mark_line(strokeWidth=7, opacity=0.35))
    if any(row["step"] for row in rows):
        layers.append(base.transform_filter("datum.step").mark_point(size=190, strokeWidth=1.6, shape="circle"))
    left = (
        "" if len(kept) == len(series) else f" Shown are the {len(kept)} of {len(series):,} series that changed most."
    )
    return Chart(
        f"series-{what}",
        section,
        title,
        f"Each line is a series of comparable runs, oldest at the left. Rings mark steps, wide lines trends.{left}",
        layered(layers, title, HEIGHT - 120),
        {"points": rows},
    )


def _relative_range(series: Series) -> float:
    """Return the range of a series relative to its level."""
    values = [point.value for point in series.points if math.isfinite(point.value)]
    return (max(values) - min(values)) / (abs(max(values)) or 1.0)
