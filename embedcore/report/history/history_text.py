"""A history of saved runs as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from embedcore.compare.history import History, Step
from embedcore.compare.series import Series
from embedcore.plain import counted, json_safe, minute, one_line
from embedcore.report.board.columns import cut, figure
from embedcore.report.board.export import guarded
from embedcore.results.run import Run

SCHEMA = 1

BARS = "▁▂▃▄▅▆▇█"
LONGEST_LINE = 40  # characters of a sparkline: the newest runs
_MOST_STEPS = 5  # of one quantity in one run
_MOST_NAMES = 3


def text(history: History, shown: Sequence[Series], *, width: int = 80) -> str:
    """Return the steps, newest first, then a table of the series `shown`; at most `width` columns (at least 60)."""
    blocks = [summary(history)]
    for place, steps in groupby(history.steps, key=lambda step: step.run):
        blocks.append("\n".join(_run_lines(history, place, list(steps), width)))
    if shown:
        blocks.append(_table(shown, width))
    return "\n\n".join(blocks) + "\n"


def summary(history: History) -> str:
    """Return the numbers of runs, models and steps on one line."""
    runs = history.runs
    models = len({result.model for run in runs for result in run.results})
    places = {step.run for step in history.steps}
    head = f"{counted(len(runs), 'run')}, {day_of(runs[0])} to {day_of(runs[-1])}, {counted(models, 'model')}: "
    return head + (f"{counted(len(history.steps), 'step')} in {counted(len(places), 'run')}" if places else "no step")


def news_of(history: History, steps: Iterable[Step]) -> str:
    """Return the other changes in the run of these steps."""
    facts = dict.fromkeys(fact for step in steps for fact in history.facts(step))
    return "; ".join(map(one_line, facts)) or "same commit, versions and machine as before"


def _run_lines(history: History, place: int, steps: Sequence[Step], width: int) -> Iterator[str]:
    run = history.runs[place]
    yield cut(f"{minute(run.datetime)}  {one_line(run.name)}", width)
    yield from textwrap.wrap(news_of(history, steps), width, initial_indent="  ", subsequent_indent="  ")
    for (_, of_family), same in groupby(steps, key=lambda step: (step.series.what, step.series.of_family)):
        alike = list(same)
        for step in alike[:_MOST_STEPS]:
            yield from _step_lines(step, width)
        if len(alike) > _MOST_STEPS:
            kind = "families" if of_family else "models"
            worse = sum(step.worse for step in alike)
            yield f"    … {len(alike) - _MOST_STEPS} more {kind}; worse in {worse} of all {len(alike)}"


def _step_lines(step: Step, width: int) -> Iterator[str]:
    series = step.series
    name = name_of(series)
    levels = "" if series.what == "drift" else f"{value_words(series, step.base)} → {value_words(series, step.new)}"
    alone = " (one run only)" if step.runs_after == 1 else ""
    numbers = f"  {series.what:<12} {change_words(step):>8}  {levels:<16}"
    yield f"{numbers}{cut(name, max(20, width - len(numbers) - len(alone)))}{alone}".rstrip()
    for cause in step.causes[:_MOST_NAMES]:
        yield from textwrap.wrap(one_line(cause), width, initial_indent=" " * 6, subsequent_indent=" " * 8)


def change_words(step: Step) -> str:
    change = step.change
    if step.series.what == "acc":
        return f"{100 * change:+.1f} pt"
    if step.series.what == "drift":
        return f"{change:.2g}" if math.isfinite(change) else "width"
    return f"{100 * change:+.1f} %"


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
    return f"family {series.name}" if series.of_family else one_line(series.name)


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
    """Return ``runs`` (oldest first), ``steps`` and ``series``, whose points are [place in runs, value]."""
    return json_safe(  # type: ignore[no-any-return]
        {
            "schema": SCHEMA,
            "runs": [
                {"path": str(run.path), "datetime": run.datetime, "commit": run.commit, **run.versions}
                for run in history.runs
            ],
            "steps": [
                {
                    **_names(step.series),
                    **{"before": step.before, "run": step.run, "base": step.base, "new": step.new},
                    **{"change": step.change, "worse": step.worse, "runs_after": step.runs_after},
                    **{"causes": step.causes, "facts": history.facts(step)},
                }
                for step in history.steps
            ],
            "series": [{**_names(series), "points": [list(point) for point in series.points]} for series in shown],
        }
    )


def _names(series: Series) -> dict[str, Any]:
    return {"model": None if series.of_family else series.name, "family": series.family, "what": series.what}


def to_csv(history: History, shown: Sequence[Series]) -> str:
    """Return a line for each point. ``series`` is the number of the series; a model has several if runs cannot be
    compared."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["series", "model", "family", "what", "run", "datetime", "value", "step"])
    steps = {(key_of(step.series), step.run) for step in history.steps}
    for number, series in enumerate(shown):
        for point in series.points:
            run = history.runs[point.run]
            is_step = int((key_of(series), point.run) in steps)
            names = [number, "" if series.of_family else one_line(series.name), series.family, series.what]
            writer.writerow(map(guarded, [*names, str(run.path), run.datetime, point.value, is_step]))
    return stream.getvalue()


def key_of(series: Series) -> tuple[object, ...]:
    return series.name, series.what, series.of_family


def day_of(run: Run) -> str:
    return minute(run.datetime)[:10]
