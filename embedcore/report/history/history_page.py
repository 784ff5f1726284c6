"""A history of saved runs as a self-contained HTML page."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from embedcore.compare.history import History, Step, Trend
from embedcore.compare.series import ALL, WHATS, Series
from embedcore.plain import counted, minute, one_line
from embedcore.report.board.columns import NOTHING, cut
from embedcore.report.history import history_text as words
from embedcore.report.html.chart import (
    COLOURS,
    GREY,
    HEIGHT,
    Channel,
    Chart,
    Datum,
    Layer,
    category,
    layer,
    layered,
    quantity,
)
from embedcore.report.html.page import ListBody, lists_page
from embedcore.results.run import Run
from embedcore.zoo.families import family_of_slug

MOST_SERIES = 40
"""Maximum number of series in a chart; those that changed most are shown."""

_TITLES: Mapping[str, tuple[str, str]] = {
    "acc": ("Accuracy", "acc"),
    "images_per_s": ("Speed", "images/s, change since the first run in %"),
    "memory": ("Memory", "peak memory, change since the first run in %"),
    "drift": ("Embeddings", "drift since the run before"),
}
_WORDS = {"acc": "acc", "images_per_s": "images/s", "memory": "memory", "drift": "drift"}
_RELATIVE = ("images_per_s", "memory")
"""Drawn relative to the first run, since the levels of models are far apart."""
_LEAST_CHANGE = 1e-6
"""Smaller changes, relative to the level, are rounding: such a series is listed and not drawn."""
_LONGEST_LABEL = 48  # characters of what changed in a run
_VERSIONS = ("timm", "torch", "cuda", "driver", "gpu", "processor", "python")


def history_page(history: History, shown: Sequence[Series], name: str) -> str:
    """Return the page of the series `shown`, of models or families, with all steps. `name`: of the history."""
    runs = history.runs
    by_family = all(series.of_family for series in shown)
    choices = _choices(shown)
    steps = [
        (run.name, minute(run.datetime), words.news_of(history, of), [_step(s, by_family=by_family) for s in of])
        for place, same in groupby(history.steps, key=lambda step: step.run)
        for run, of in [(runs[place], list(same))]
    ]
    return lists_page(
        "history.html.j2",
        title=f"{name}: embedcore history",
        rows=[],
        choices=list(choices.values()),
        drawn=charts(history, shown, choices),
        heading=name,
        lead=words.summary(history),
        facts=_facts(history),
        trends=[_trend(history, one, by_family=by_family) for one in history.trends],
        steps=steps,
        group="Family" if by_family else "Model",
        groups="Families" if by_family else "Models",
        series=[
            ListBody(_group(of[0]), words.name_of(of[0]), [_row(series) for series in of])
            for _, same in groupby(shown, key=words.name_of)
            for of in [list(same)]
        ],
        run_heads=["#", "saved at", "name", "steps", "commit", *_present(history)],
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
        ("Trends up to the newest run", f"{sum(trend.run == len(runs) - 1 for trend in history.trends):,}"),
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


def _choices(shown: Sequence[Series]) -> dict[str, dict[str, str]]:
    """Return slug, title and colour of each group, by the slug."""
    titles = {
        _group(series): family_of_slug(series.family).title if series.of_family and series.name != ALL else series.name
        for series in shown
    }
    return {
        group: {"slug": group, "title": title, "colour": COLOURS[number % len(COLOURS)]}
        for number, (group, title) in enumerate(titles.items())
    }


def _step(step: Step, *, by_family: bool) -> ListBody:
    alone = "this run only, one process" if step.weak else "this run only"
    seen = alone if step.runs_after == 1 else f"{step.runs_after} runs"
    return _body(step, [seen], step.causes, by_family=by_family)


def _trend(history: History, trend: Trend, *, by_family: bool) -> ListBody:
    last = [words.rate_words(trend), f"{trend.runs} runs"]
    return _body(trend, last, [words.trend_news(history, trend), *trend.causes], by_family=by_family)


def _body(one: Step | Trend, last: Sequence[str], reasons: Sequence[str], *, by_family: bool) -> ListBody:
    """Return the row of a change: what, levels, change, and the `last` cells."""
    series = one.series
    drift = series.what == "drift"
    worse = one.worse and not drift
    what = f"{_WORDS[series.what]}, one thread" if series.pinned else _WORDS[series.what]
    levels = ("", "") if drift else (words.value_words(series, one.base), words.value_words(series, one.new))
    change = f"{words.change_words(one)}{' (worse)' if worse else ''}"
    group = series.family if by_family else series.name
    return ListBody(group, words.name_of(series), [(what, *levels, change, *last)], reasons, worse)


def _row(series: Series) -> tuple[str, ...]:
    """Return what, number of runs, first and last value, and the sparkline."""
    values = [point.value for point in series.points]
    ends = (words.value_words(series, value) for value in (values[0], values[-1]))
    return _WORDS[series.what], f"{len(values)}", *ends, words.sparkline(values[-words.LONGEST_LINE :])


def charts(history: History, shown: Sequence[Series], choices: Mapping[str, Mapping[str, str]]) -> list[Chart]:
    """Return a chart of each quantity that changed; the parameter ``family`` holds the highlighted group."""
    found = (_chart(history, [s for s in shown if s.what == what], what, choices) for what in WHATS)
    return [chart for chart in found if chart is not None]


def _chart(
    history: History, series: Sequence[Series], what: str, choices: Mapping[str, Mapping[str, str]]
) -> Chart | None:
    changed = [one for one in series if _movement(one) > _LEAST_CHANGE]
    kept = sorted(changed, key=_movement, reverse=True)[:MOST_SERIES]
    if not kept:
        return None
    keys = {words.key_of(one) for one in kept}
    steps = [step for step in history.steps if words.key_of(step.series) in keys]
    begun = {(words.key_of(step.series), step.run): step for step in steps}
    stepped = {key for key, _ in begun}
    rows = [
        {
            "place": point.run + 1,
            "at": _milliseconds(history.runs[point.run]),
            "group": _group(one),
            "name": choices[_group(one)]["title"],
            "colour": choices[_group(one)]["colour"],
            "value": point.value,
            "drawn": 100 * (point.value / one.points[0].value - 1) if what in _RELATIVE else point.value,
            "series": number,
            "step": words.change_words(begun[key]) if (key := (words.key_of(one), point.run)) in begun else None,
            "trend": words.in_trend(history, one, point.run),
            "eventful": key[0] in stepped or words.in_trend(history, one),
            "saved": history.runs[point.run].name,
            "day": minute(history.runs[point.run].datetime),
        }
        for number, one in enumerate(kept)
        for point in one.points
        if math.isfinite(point.value)
    ]
    section, title = _TITLES[what]
    return Chart(
        f"series-{what}",
        section,
        title,
        " ".join(filter(None, _notes(series, changed, kept, rows))),
        layered(_layers(history, steps, rows, what, title), title, HEIGHT - 120),
        {"points": rows},
    )


def _notes(
    series: Sequence[Series], changed: Sequence[Series], kept: Sequence[Series], rows: Sequence[Datum]
) -> Iterator[str]:
    yield "Each line is a series of comparable runs; those with a step or a trend are coloured."
    if any(row["step"] for row in rows):
        yield "A vertical line and a label mark the runs in which series made steps, rings the steps."
    if any(row["trend"] for row in rows):
        yield "Wide lines are trends."
    if len(kept) < len(changed):
        yield f"Shown are the {len(kept)} of {len(series):,} series that changed most."
    elif len(changed) < len(series):
        flat = counted(len(series) - len(changed), "series", "series")
        yield f"{flat} without a change, or with one run, in the list below."


def _layers(history: History, steps: Sequence[Step], rows: Sequence[Datum], what: str, title: str) -> list[Layer]:
    days = {words.day_of(run): _milliseconds(run) for run in reversed(history.runs)}  # the first run of each
    # As an expression: Vega-Lite makes numbers dates in a way that the interpreter of a page does not understand.
    values = {"expr": f"[{', '.join(map(str, sorted(days.values())))}]"}
    ticks = {"values": values, "format": "%Y-%m-%d", "grid": False, "labelOverlap": True}
    scale = {"type": "utc", "padding": 14}
    x = {"field": "at", "type": "temporal", "title": "day of the run", "scale": scale, "axis": ticks}
    y = quantity("drawn", title, scale={"zero": False, "padding": 14})
    of_group = {"field": "colour", "type": "nominal", "scale": None}
    coloured = {"condition": {"test": "datum.eventful || datum.group == family", **of_group}, "value": GREY}
    opacity = {"condition": {"test": "!family || datum.group == family", "value": 0.95}, "value": 0.1}
    hover = [*(category(key) for key in ("name", "saved", "day")), quantity("value", what, format=".4~g")]
    shared = {"x": x, "y": y, "opacity": opacity}
    course = {**shared, "color": coloured, "detail": {"field": "series", "type": "nominal"}}
    layers = [*_step_lines(history, steps, x)]
    if any(row["trend"] for row in rows):
        layers.append(layer("line", course, data="points", where="datum.trend", strokeWidth=7, strokeOpacity=0.35))
    layers += [
        layer("line", course, data="points", strokeWidth=1.8),
        layer("point", {**shared, "color": coloured, "tooltip": hover}, data="points", filled=True, size=40),
    ]
    if any(row["step"] for row in rows):
        ring = {**shared, "color": coloured, "tooltip": hover}
        layers.append(layer("point", ring, data="points", where="isValid(datum.step)", size=190, strokeWidth=1.6))
    return layers


def _step_lines(history: History, steps: Sequence[Step], x: Channel) -> list[Layer]:
    """Return a vertical line for each run with steps, with what changed in it as a label at its top."""
    runs: list[Datum] = [
        {"at": _milliseconds(history.runs[place]), "news": cut(_label(history, place, list(same)), _LONGEST_LABEL)}
        for place, same in groupby(sorted(steps, key=lambda step: step.run), key=lambda step: step.run)
    ]
    if not runs:
        return []
    times = [_milliseconds(run) for run in history.runs]
    left = f"datum.at <= {(min(times) + max(times)) / 2}"  # a line at the right end has its label on the left
    side: dict[str, Any] = {"align": {"expr": f"{left} ? 'left' : 'right'"}, "dx": {"expr": f"{left} ? 4 : -4"}}
    text = {"x": x, "y": {"value": 0}, "text": category("news")}
    return [
        layer("rule", {"x": x}, data=runs, strokeDash=[2, 3]),
        layer("text", text, data=runs, baseline="top", fontSize=10.5, **side),
    ]


def _label(history: History, place: int, steps: Sequence[Step]) -> str:
    """Return what changed in a run, or its name, and the step of the quantity if it is the only one."""
    facts = [fact for step in steps for fact in history.facts(step)]
    news = next((fact for fact in facts if not fact.startswith("commit ")), history.runs[place].name)
    return f"{one_line(news)}: {words.change_words(steps[0])}" if len(steps) == 1 else one_line(news)


def _milliseconds(run: Run) -> int:
    """Return the time of a run in milliseconds since the epoch; one without a zone is taken as UTC."""
    text = str(run.datetime)
    for known in (text, text[:19], text[:10]):  # Python 3.10 reads fewer forms of ISO 8601
        with contextlib.suppress(ValueError):
            when = datetime.fromisoformat(known)
            return round((when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    return 0


def _movement(series: Series) -> float:
    """Return the range of a series relative to its level, or its highest drift; 0 if it has fewer than two runs."""
    values = [point.value for point in series.points if math.isfinite(point.value)]
    if len(values) < 2:
        return 0.0
    return max(values) if series.what == "drift" else (max(values) - min(values)) / (abs(max(values)) or 1.0)
