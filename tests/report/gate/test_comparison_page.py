"""A comparison as a page, from runs with known changes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import lists
import pytest

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.report.gate import comparison_text as words
from embedcore.report.gate.comparison_page import chart_rows, charts, comparison_page
from embedcore.report.html.chart import GREY, WORSE

LIMITS = Limits(parse_limits(DEFAULT))


class Text(HTMLParser):
    """The text between the tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def __str__(self) -> str:
        return " ".join(" ".join(self.parts).split())


def page_of(**changes: Any) -> str:
    comparison = compare(*lists.two_runs(**changes))
    return comparison_page(comparison, judge(comparison, LIMITS), LIMITS)


def data_of(page: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    return data


def test_the_worst_models_come_first_with_reasons_and_both_sides() -> None:
    page = page_of()
    text = str(Text(page[: page.index('id="data"')]))
    assert 0 < text.index("FAILED") < text.index("REGRESSIONS: 3 models")
    listed = text[text.index("REGRESSIONS") :]
    places = [listed.index(name) for name in (lists.GONE, lists.WORSE, lists.SLOWER)]
    assert places == sorted(places)
    assert "interpolation bicubic → bilinear" in text
    assert "timm 1.0.20 1.0.31 differs" in text and "torch 2.14.1 2.14.1 cuda" in text
    assert "Missing: resnet_0.a_in1k" in text


def test_incomparable_results_are_shown_with_reasons() -> None:
    text = str(Text(page_of(processor="another CPU")))
    assert "speed and memory not compared: " in text and "another CPU" in text
    assert [chart["name"] for chart in data_of(page_of(processor="another CPU"))["charts"]] == ["accuracy", "drift"]


def test_the_figures_of_the_charts_are_those_of_the_runs() -> None:
    base, new = lists.two_runs()
    comparison = compare(base, new)
    rows = {row["model"]: row for row in chart_rows(comparison, judge(comparison, LIMITS))}
    before, after = ({r.model: r for r in run.results} for run in (base, new))
    assert set(rows) == set(before) & set(after)
    for model, row in rows.items():
        acc = [side[model].scores["acc"] for side in (before, after)]
        assert row["acc_change"] == pytest.approx(100 * (acc[1] - acc[0]))
        assert row["acc_low"] <= row["acc_change"] <= row["acc_high"]
        assert (row["speed"], row["speed_new"]) == tuple(s[model].images_per_s["forward"] for s in (before, after))
        assert row["speed_low"] <= row["speed_change"] <= row["speed_high"]
    assert rows[lists.SLOWER]["speed_change"] == pytest.approx(-30, abs=1)
    assert rows[lists.SLOWER]["speed_level"] == "regression" and rows[lists.WORSE]["acc_level"] == "regression"


def test_a_chart_as_a_file_has_its_lines_too() -> None:
    """A chart's inline data are kept beside the inserted datasets."""
    comparison = compare(*lists.two_runs())
    rows = chart_rows(comparison, judge(comparison, LIMITS))
    whole = next(chart.standalone for chart in charts(rows, LIMITS.overall) if chart.name == "speed")
    lines = sorted(row["at"] for layer in whole["layer"] for row in layer["data"].get("values", ()) if "at" in row)
    assert lines == [-5.0, 0.0]


def test_the_title_is_what_changed_and_how_many_models_are_worse() -> None:
    base, new = lists.two_runs()
    comparison = compare(base, new)
    heading = "timm 1.0.20 → 1.0.31: 3 of 18 models worse"
    verdict = judge(comparison, LIMITS)
    page = page_of()
    assert f"<title>{heading}: embedcore comparison</title>" in page and f'<h1 id="name">{heading}</h1>' in page
    assert words.markdown(comparison, verdict).startswith(f"## {heading}\n\n**FAILED")
    assert words.text(comparison, verdict).startswith(f"{heading}\n")
    assert f"{base.name} → {new.name}" in str(Text(page))


def test_without_another_version_the_title_is_what_else_changed() -> None:
    run = lists.run_of()
    other = replace(run, settings={**run.settings, "precision": "bf16"})
    assert words.changed(run, other) == "precision None → bf16"
    assert words.changed(run, run) == f"{run.name} → {run.name}"
    versions = {"timm": "2", "torch": "3", "python": "4", "cuda": "13", "processor": "x" * 99}
    changed = words.changed(run, replace(run, machine={"embedcore": versions}))
    assert changed == "timm 1.0.20 → 2, torch 2.14.1 → 3, cuda None → 13 and 2 more"
    equal = compare(run, run)
    assert words.title(equal, judge(equal, LIMITS)).endswith(": none of 18 models worse")


def test_regressions_are_red_and_other_models_grey() -> None:
    comparison = compare(*lists.two_runs())
    rows = chart_rows(comparison, judge(comparison, LIMITS))
    for chart in charts(rows, LIMITS.overall):
        points = [layer for layer in chart.spec["layer"] if layer["mark"]["type"] == "point"]
        colours = [layer["encoding"]["color"] for layer in points]
        assert {colour["value"] for colour in colours} == {GREY}
        assert any(case["value"] == WORSE for case in colours[0]["condition"])


def test_equal_runs_pass_with_nothing_to_list() -> None:
    comparison = compare(*[lists.two_runs()[0]] * 2)
    text = str(Text(comparison_page(comparison, judge(comparison, LIMITS), LIMITS)))
    assert "PASSED" in text and "No significant changes" in text
