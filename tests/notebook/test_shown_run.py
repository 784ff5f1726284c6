"""Runs in a notebook: a small table, and the report's charts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import altair
import pytest
from notebook_runs import CLASSES, results, run_of
from synthetic_runs import as_run, saved

from embedcore import Run, UsageError, read_run
from embedcore.notebook.shown_run import MOST_ROWS, shown_run

TAGS = {"p", "b", "div", "table", "thead", "tbody", "tr", "th", "td"}


class Texts(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.cells.append(data.strip())


def test_a_run_is_shown_as_its_leaderboard():
    gone = {"model": "beit_gone.a", "family": "beit", "status": "no-weights", "reason": "beit_gone.a: no weights"}
    page = shown_run(run_of(excluded=[gone]))._repr_html_()
    found = Texts(page)
    assert found.tags.count("tr") == 5 and len(page) < 10_000
    assert [cell for cell in found.cells if cell in {"vit_good.a", "vgg_poor.a"}]
    assert "Not measured: 1 of 5 models (1 no-weights)" in found.cells
    assert any("are tied for first" in cell for cell in found.cells)


def test_names_are_escaped():
    run = run_of(dataset={"name": "<script>alert(1)</script>"}, licence="<img src=x>", pretraining="<b>x</b>")
    page = shown_run(run)._repr_html_()
    assert "<script" not in page and "<img" not in page and "<b>x" not in page
    assert "&lt;script&gt;alert(1)" in page and set(Texts(page).tags) <= TAGS


def test_a_long_leaderboard_is_cut():
    models = [{**results("vgg_poor.a")[0], "model": f"vgg_{number}.a"} for number in range(MOST_ROWS + 7)]
    page = shown_run(as_run(saved(models, CLASSES)))._repr_html_()
    assert page.count("<tr>") == MOST_ROWS + 1 and "and 7 more models: embedcore.leaderboard(run)" in page


def test_a_run_without_results_is_shown_too():
    page = shown_run(run_of().on(None))._repr_html_()
    assert "<table" not in page


def test_charts_are_those_of_the_report():
    run = shown_run(run_of())
    chart = run.plot().to_dict()
    assert "vit_good.a" in json.dumps(chart["datasets"]) and re.search("vega-lite", chart["$schema"])
    with pytest.raises(UsageError, match=r"^no chart 'nonsense': leaders-acc, leaders-acc5, "):
        run.plot("nonsense")
    with pytest.raises(UsageError, match=r"^no dataset 'birds' in this run: photos$"):
        run.plot(dataset="birds")


def test_a_chart_is_shown_without_the_network():
    chart = shown_run(run_of()).plot().properties(width=300)
    shown = chart._repr_mimebundle_()
    assert [*shown] == ["image/svg+xml"] and len(shown["image/svg+xml"]) < 100_000
    drawn = ElementTree.fromstring(shown["image/svg+xml"])
    assert "vit_good.a" in {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert not re.search(r"<script|(href|src)=.http", shown["image/svg+xml"])
    with altair.renderers.enable("html"):
        assert [*chart._repr_mimebundle_()] == ["text/html"]


def test_a_read_run_is_shown(tmp_path):
    path = tmp_path / "0001_before.json"
    path.write_text(json.dumps(saved(results(), CLASSES)))
    run = read_run(path)
    assert isinstance(run, Run) and "<table" in run._repr_html_()
    assert repr(run) == "Run 'before' on photos: 4 models measured"
