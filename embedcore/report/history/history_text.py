"""A history of saved runs as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from embedcore.compare.history import History, Step, Trend
from embedcore.compare.series import ALL, Series
from embedcore.plain import counted, json_safe, minute, one_line, wrapped
from embedcore.report.board.columns import cut, figure
from embedcore.report.board.export import guarded
from embedcore.results.run import Run

SCHEMA = 1

BARS = "▁▂▃▄▅▆▇█"
LONGEST_LINE = 40  # characters of a sparkline: the newest runs
_MOST_STEPS = 5  # of one quantity in one run
_MOST_NAMES = 3


def text(history: History, shown: Sequence[Series], *, width: int = 80) -> str:
    """Return the trends, the steps, newest first, and a table of the series `shown`; at most `width` columns (at least
    60)."""
    blocks = [summary(history)]
    if history.trends:
        blocks.append("\n".join(["Trends", *_listed(history, history.trends, width)]))
    for place, steps in groupby(history.steps, key=lambda step: step.run):
        blocks.append("\n".join(_run_lines(history, place, list(steps), width)))
    if shown:
        blocks.append(_table(shown, width))
    return "\n\n".join(blocks) + "\n"


def summary(history: History) -> str:
    """Return the numbers of runs, models, trends and steps on one line."""
    runs = history.runs
    models = len({result.model for run in runs for result in run.results})
    places = {step.run for step in history.steps}
    head = f"{counted(len(runs), 'run')}, {day_of(runs[0])} to {day_of(runs[-1])}, {counted(models, 'model')}: "
    trends = f"{counted(len(history.trends), 'trend')}, " if history.trends else ""
    steps = f"{counted(len(history.steps), 'step')} in {counted(len(places), 'run')}" if places else "no step"
    return head + trends + steps


def news_of(history: History, steps: Iterable[Step]) -> str:
    """Return the other changes in the run of these steps."""
    return "; ".join(_facts(history, steps)) or "same commit, versions and machine as before"


def _facts(history: History, changes: Iterable[Step | Trend]) -> list[str]:
    return [one_line(fact) for fact in dict.fromkeys(fact for one in changes for fact in history.facts(one))]


def trend_news(history: History, trend: Trend) -> str:
    """Return the period of a trend, and what changed in it."""
    first, last = (day_of(history.runs[place]) for place in (trend.before, trend.run))
    return "; ".join([f"{first} to {last}, {counted(trend.runs, 'run')}", *_facts(history, [trend])])


def _listed(history: History, changes: Iterable[Step | Trend], width: int) -> Iterator[str]:
    """Yield lines on the first changes of each quantity, of families and of models, and the number of the others."""
    groups: dict[tuple[str, bool], list[Step | Trend]] = {}
    for one in changes:
        groups.setdefault((one.series.what, one.series.of_family), []).append(one)
    for (_, of_family), alike in groups.items():
        for one in alike[:_MOST_STEPS]:
            yield from _change_lines(one, width)
            if isinstance(one, Trend):
                yield wrapped(f"      {trend_news(history, one)}", width)
        if len(alike) > _MOST_STEPS:
            kind = "families" if of_family else "models"
            worse = sum(one.worse for one in alike)
            yield f"    … {len(alike) - _MOST_STEPS} more {kind}; worse in {worse} of all {len(alike)}"


def _run_lines(history: History, place: int, steps: Sequence[Step], width: int) -> Iterator[str]:
    run = history.runs[place]
    yield cut(f"{minute(run.datetime)}  {one_line(run.name)}", width)
    yield wrapped(f"  {news_of(history, steps)}", width)
    yield from _listed(history, steps, width)


def _change_lines(one: Step | Trend, width: int) -> Iterator[str]:
    series = one.series
    name = name_of(series) + (", one thread" if series.pinned else "")
    levels = "" if series.what == "drift" else f"{value_words(series, one.base)} → {value_words(series, one.new)}"
    alone = ""
    if isinstance(one, Step) and one.runs_after == 1:
        alone = " (one process)" if one.weak else " (one run only)"
    change = f"{change_words(one):>8}" if isinstance(one, Step) else f"{rate_words(one):>14}"
    numbers = f"  {series.what:<12} {change}  {levels:<16}"
    yield f"{numbers}{cut(name, max(20, width - len(numbers) - len(alone)))}{alone}".rstrip()
    for cause in one.causes[:_MOST_NAMES]:
        yield wrapped(f"      {one_line(cause)}", width)


def change_words(one: Step | Trend) -> str:
    change = one.change
    if one.series.what == "drift":
        return f"{change:.2g}" if math.isfinite(change) else "width"
    return f"{100 * change:+.1f} {_UNITS[one.series.what]}"


def rate_words(trend: Trend) -> str:
    rate = 100 * trend.rate
    return f"{rate:{'+.1f' if abs(rate) >= 0.95 else '+.2g'}} {_UNITS[trend.series.what]} a run"


_UNITS = {"acc": "pt", "images_per_s": "%", "memory": "%"}


def value_words(series: Series, value: float) -> str:
    if series.what == "acc":
        return f"{value:.3f}"
    if series.what == "drift":
        return f"{value:.2g}"
    return f"{figure(value)} MB" if series.what == "memory" else figure(value)


def _table(shown: Sequence[Series], width: int) -> str:
    """Return a row for each series, under the name of its model or family."""
    rows = [
        (
            f"  {series.what}",
            str(len(series.points)),
            value_words(series, series.points[0].value),
            value_words(series, series.points[-1].value),
            sparkline([point.value for point in series.points][-LONGEST_LINE:]),
        )
        for series in shown
    ]
    align = ("left", "right", "right", "right", "left")
    head, *cells = _aligned([("  series", "runs", "first", "last", ""), *rows], align)
    lines = [head]
    for name, same in groupby(zip(shown, cells, strict=True), key=lambda row: name_of(row[0])):
        lines += [cut(name, width), *(line for _, line in same)]
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]], align: Sequence[str]) -> list[str]:
    # tabulate strips indentation: a dot keeps it.
    table = tabulate(
        [("." + row[0], *row[1:]) for row in rows], tablefmt="plain", colalign=align, disable_numparse=True
    )
    return [line[1:] for line in table.splitlines()]


def name_of(series: Series) -> str:
    if series.name == ALL:
        return ALL
    return f"family {one_line(series.name)}" if series.of_family else one_line(series.name)


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, scaled from the lowest to the highest; ``!`` for a non-finite one.

    >>> sparkline([1, 2, 3, 2])
    '▁▅█▅'
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    top = len(BARS) - 1
    # Values that differ in the last digits only are a flat line in the middle.
    flat = high - low <= 1e-9 * abs(high)
    return "".join(
        "!" if not math.isfinite(v) else BARS[3 if flat else math.floor((v - low) / (high - low) * top + 0.5)]
        for v in values
    )


def to_json(history: History, shown: Sequence[Series]) -> dict[str, Any]:
    """Return ``runs`` (oldest first), ``steps``, ``trends`` and ``series``, whose points are [place in runs, value].

    ``before`` and ``run`` of a step are the places of the last run before it and the first one after, those of a trend
    its first and last run.
    """
    return json_safe(  # type: ignore[no-any-return]
        {
            "schema": SCHEMA,
            "runs": [
                {"path": str(run.path), "datetime": run.datetime, "commit": run.commit, **run.versions}
                for run in history.runs
            ],
            "steps": [_fields(history, step) | {"runs_after": step.runs_after} for step in history.steps],
            "trends": [_fields(history, one) | {"runs": one.runs, "rate": one.rate} for one in history.trends],
            "series": [{**_names(series), "points": [list(point) for point in series.points]} for series in shown],
        }
    )


def _fields(history: History, one: Step | Trend) -> dict[str, Any]:
    return {
        **_names(one.series),
        **{"before": one.before, "run": one.run, "base": one.base, "new": one.new},
        **{"change": one.change, "worse": one.worse, "causes": one.causes, "facts": history.facts(one)},
    }


def _names(series: Series) -> dict[str, Any]:
    model = None if series.of_family else series.name
    return {"model": model, "family": series.family, "what": series.what, "pinned": series.pinned}


def to_csv(history: History, shown: Sequence[Series]) -> str:
    """Return a line for each point. ``series`` is the number of the series; a model has several if runs cannot be
    compared. ``step`` and ``trend``: 1 if the run begins a step, or is in a trend."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["series", "model", "family", "what", "run", "datetime", "value", "step", "trend"])
    steps = {(key_of(step.series), step.run) for step in history.steps}
    for number, series in enumerate(shown):
        for point in series.points:
            run = history.runs[point.run]
            marks = int((key_of(series), point.run) in steps), int(in_trend(history, series, point.run))
            names = [number, "" if series.of_family else one_line(series.name), series.family, series.what]
            writer.writerow(map(guarded, [*names, str(run.path), run.datetime, point.value, *marks]))
    return stream.getvalue()


def key_of(series: Series) -> tuple[object, ...]:
    """Return a key that no other series of the history has."""
    return series.name, series.what, series.of_family, series.device, series.points[0].run


def in_trend(history: History, series: Series, run: int | None = None) -> bool:
    """Whether a series has a trend, in this run if one is named."""
    return any(
        key_of(one.series) == key_of(series) and (run is None or one.before <= run <= one.run) for one in history.trends
    )


def day_of(run: Run) -> str:
    return minute(run.datetime)[:10]
