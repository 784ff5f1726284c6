"""A history as a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import lists
import numpy as np
import pytest

from embedcore.compare.history import Trend
from embedcore.report.history.history_page import MOST_SERIES, _milliseconds, history_page
from embedcore.report.html.drawing import svg


def data_of(page: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    return data


def test_steps_have_their_changes_and_series_all_points() -> None:
    found = lists.some_history()
    shown = [series for series in found.series if series.of_family]
    page = history_page(found, shown, ".benchmarks")
    assert page.index("2026-11-04 12:00") < page.index("timm 1.0.20 → 1.0.31") < page.index("Charts</h2>")
    steps = page[page.index("Steps, newest first") : page.index("Charts</h2>")]
    assert lists.WORSE in steps and lists.SLOWER in steps and "(worse)" in steps
    charts = {chart["name"]: chart for chart in data_of(page)["charts"]}
    points = {(p["group"], p["place"]): p["value"] for p in charts["series-images_per_s"]["data"]["points"]}
    assert points == {
        (series.family, point.run + 1): pytest.approx(point.value)
        for series in shown
        if series.what == "images_per_s"
        for point in series.points
    }
    first = [p["drawn"] for p in charts["series-images_per_s"]["data"]["points"] if p["place"] == 1]
    assert first == [0.0] * (len(lists.FAMILIES) + 1)  # and that of all models


def test_requested_models_have_their_own_colours() -> None:
    found = lists.some_history()
    shown = [series for series in found.series if series.matches("vit*") and not series.of_family]
    choices = data_of(history_page(found, shown, "x"))["choices"]
    assert [choice["slug"] for choice in choices] == sorted(n for n in lists.NAMES if n.startswith("vit"))
    assert len({choice["colour"] for choice in choices}) == len(choices)


def test_the_series_that_changed_most_are_drawn() -> None:
    found = lists.some_history()
    shown = [series for series in found.series if not series.of_family] * 3
    chart = next(c for c in data_of(history_page(found, shown, "x"))["charts"] if c["name"] == "series-images_per_s")
    assert len({point["series"] for point in chart["data"]["points"]}) == MOST_SERIES
    assert lists.SLOWER in {point["name"] for point in chart["data"]["points"]}
    assert f"Shown are the {MOST_SERIES} of" in chart["note"]


def test_the_axis_has_dates_and_steps_have_a_line_with_a_label() -> None:
    found = lists.some_history()
    shown = [series for series in found.series if series.of_family]
    charts = {chart["name"]: chart for chart in data_of(history_page(found, shown, "x"))["charts"]}
    speed = charts["series-images_per_s"]
    points = speed["data"]["points"]
    times = sorted({point["at"] for point in points})
    assert np.diff(times).tolist() == [24 * 3600 * 1000] * 5
    rule, *texts = (layer for layer in speed["spec"]["layer"] if "values" in layer["data"])
    assert rule["mark"]["type"] == "rule" and rule["encoding"]["x"]["type"] == "temporal"
    axis = rule["encoding"]["x"]["axis"]
    assert (json.loads(axis["values"]["expr"]), axis["format"]) == (times, "%Y-%m-%d"), "a tick for each day"
    (line,) = rule["data"]["values"]
    assert line["at"] == times[3] and line["news"].startswith("timm 1.0.20 → 1.0.31")
    assert {layer["mark"]["type"] for layer in texts} == {"text"}
    stepped = {point["group"] for point in points if point["step"]}
    assert {point["place"] for point in points if point["step"]} == {4}
    assert {point["group"] for point in points if point["eventful"]} == stepped
    assert svg(speed["spec"] | {"datasets": speed["data"]}).startswith(b"<svg")


def test_a_series_without_a_change_is_listed_and_not_drawn() -> None:
    found = lists.some_history()
    shown = [series for series in found.series if not series.of_family and series.what == "acc"]
    flat = [series for series in shown if len({point.value for point in series.points}) == 1]
    (chart,) = data_of(history_page(found, shown, "x"))["charts"]
    drawn = {point["name"] for point in chart["data"]["points"]}
    assert lists.WORSE in drawn and not drawn & {series.name for series in flat} and len(flat) > 10
    assert f"{len(flat)} series without a change" in chart["note"]
    page = history_page(found, flat, "x")
    assert data_of(page)["charts"] == [] and flat[0].name in page[page.index("Series</h2>") :]


@pytest.mark.parametrize(
    "text", ["2026-11-24T12:00:00+00:00", "2026-11-24T12:00:00", "2026-11-24T13:00:00.5+01:00", "2026-11-24T12:00:00Z"]
)
def test_times_of_runs(text: str) -> None:
    run = replace(lists.run_of(), datetime=text)
    assert abs(_milliseconds(run) - 1795521600_000) <= 3600_000
    assert _milliseconds(replace(run, datetime="yesterday")) == 0


def test_trends_have_their_rate_and_are_wide_lines() -> None:
    found = lists.some_history()
    step = next(step for step in found.steps if step.series.what == "images_per_s")
    trend = Trend(step.series, 1, 4, 100.0, 85.0, 4, causes=("other <crop>",))
    page = history_page(replace(found, trends=(trend,)), [step.series], "x")
    of_trends = page[page.index("Trends, newest first") : page.index("Steps, newest first")]
    assert "-5.3\u00a0% a run" in of_trends and "2026-11-02 to 2026-11-05, 4 runs; timm 1.0.20" in of_trends
    assert "other &lt;crop&gt;" in of_trends and page.count('id="filters"') == 1
    chart = next(c for c in data_of(page)["charts"] if c["name"] == "series-images_per_s")
    assert [point["place"] for point in chart["data"]["points"] if point["trend"]] == [2, 3, 4, 5]
    alone = history_page(replace(found, trends=(trend,), steps=()), [step.series], "x")
    assert alone.count('id="filters"') == 1
