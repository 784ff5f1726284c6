"""Specifications of charts: what they show, and that each is drawn."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import browsing
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from embedcore.report.board import charts
from embedcore.report.board.findings import disagreeing, disagreements
from embedcore.report.board.rows import rows
from embedcore.report.html import chart
from embedcore.report.html.chart import ACCENT, GREY, OWN, Chart, ScoreAxis
from embedcore.report.html.drawing import svg
from embedcore.results.class_table import ClassTable, class_table
from embedcore.results.leaderboard import Leaderboard, boards_of, build
from embedcore.results.ranking import kendall_tau
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import pack_classes, unpack_classes, unpack_verdicts
from embedcore.retrieval.gallery_growth import none_drawn


def parts_of(run: Run) -> tuple[Leaderboard, list[dict[str, Any]], ClassTable | None]:
    (board,) = boards_of(run, browsing.TITLES)
    return board, rows(board), class_table((row.result for row in board.by_acc), board.dataset)


def charts_of(run: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts.charts(*parts_of(run))}


RUN = browsing.a_run()
BOARD, ROWS, TABLE = parts_of(RUN)
CHARTS = charts_of(RUN)


def layers(spec: dict[str, Any], mark: str) -> Iterator[dict[str, Any]]:
    for layer in spec["layer"]:
        if "layer" in layer:
            yield from layers(layer, mark)
        elif layer["mark"]["type"] == mark:
            yield layer


def intervals(chart: Chart) -> dict[str, Any]:
    (found,) = (one for one in layers(chart.spec, "rule") if one["encoding"].get("y2") == {"field": "acc_high"})
    return found


def spans(spec: dict[str, Any]) -> set[str]:
    """The fields between which lines are drawn."""
    return {
        f"{layer['encoding'][way]['field']} to {layer['encoding'][f'{way}2']['field']}"
        for layer in layers(spec, "rule")
        for way in ("x", "y")
        if f"{way}2" in layer["encoding"]
    }


def test_every_chart_of_a_run_is_there() -> None:
    wanted = {"leaders-acc", "leaders-acc5", "acc-speed", "acc-parameters", "acc-gmacs", "acc-acc5", "families"}
    wanted |= {"classes", "pretraining", "family-resnet", "family-efficientnet"}
    assert set(CHARTS) == wanted


def test_every_scatter_has_intervals() -> None:
    assert spans(CHARTS["leaders-acc"].spec) == {"acc_low to acc_high"}
    for name in ("acc-speed", "acc-parameters", "acc-gmacs"):
        assert "acc_low to acc_high" in spans(CHARTS[name].spec)
    assert spans(CHARTS["leaders-acc5"].spec) == {"acc5_low to acc5_high"}
    assert spans(CHARTS["acc-acc5"].spec) == {"acc_low to acc_high", "acc5_low to acc5_high"}
    assert "family" not in json.dumps(intervals(CHARTS["acc-speed"])["transform"])
    many = intervals(charts_of(browsing.a_run(250))["acc-speed"])
    assert "datum.own" in json.dumps(many["transform"]), "of many models only those that stand out have one"


def test_chance_and_the_best_possible_score_are_lines_near_the_data_and_else_in_the_note() -> None:
    made = [{"acc": 0.5, "acc_low": 0.45, "acc_high": 0.55}, {"acc": 0.9, "acc_low": 0.85, "acc_high": 0.95}]
    axis = ScoreAxis.over(made, "acc", {"chance": 0.004, "perfect": 1.0})
    assert dict(axis.lines) == {"perfect": 1.0} and axis.note == "Chance (0.004) is below this axis."
    assert axis.low < 0.45 and axis.high > 1.0
    assert {layer["mark"]["type"] for layer in axis.line_layers()} == {"rule", "text"}
    assert dict(ScoreAxis.over(made, "acc", {"chance": 0.3, "perfect": None}).lines) == {"chance": 0.3}
    assert ScoreAxis.over(made, "acc", {}).line_layers() == []
    (line,) = (layer for layer in layers(CHARTS["leaders-acc5"].spec, "text"))
    assert [row["line"] for row in line["data"]["values"]] == ["chance 0.02", "perfect 0.71"]


def test_an_axis_does_not_enlarge_a_tie() -> None:
    axis = ScoreAxis.over([{"acc": 0.5}, {"acc": 0.5001}], "acc", {})
    assert axis.high - axis.low == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    "name", ["leaders-acc", "acc-speed", "acc-acc5", "families", "classes", "pretraining", "family-resnet"]
)
def test_a_chart_is_drawn_as_svg_with_its_names(name: str) -> None:
    drawn = svg(CHARTS[name].standalone).decode()
    assert drawn.startswith("<svg")
    assert CHARTS[name].title in drawn
    best = ROWS[0]["model"]
    if name in ("leaders-acc", "acc-speed"):
        assert best in drawn
    if name == "leaders-acc":
        assert set(re.findall(r"#[0-9a-f]{6}", drawn)) >= {GREY, ACCENT, OWN}  # some models are tied, some are own
        assert "symbol" not in drawn.partition("role-legend")[2], "no legend"


def test_one_model_gives_charts_and_none_gives_none() -> None:
    one = charts_of(browsing.a_run(1))
    assert "leaders-acc" in one and "acc-acc5" not in one and "classes" not in one
    for each in one.values():
        assert svg(each.standalone).startswith(b"<svg")
    board, _, _ = parts_of(browsing.a_run(0))
    assert charts.charts(board, [], None) == []


def test_without_speeds_parameters_and_intervals_their_charts_are_left_out() -> None:
    bare = [
        {k: v for k, v in row.items() if k not in ("images_per_s", "params_m", "gmacs") and "_low" not in k}
        for row in ROWS
    ]
    found = {chart.name: chart for chart in charts.charts(BOARD, bare, None)}
    assert not {"acc-speed", "acc-parameters", "acc-gmacs", "classes"} & set(found)
    assert spans(found["leaders-acc"].spec) == set()


def test_a_large_family_comes_in_two_parts() -> None:
    results = [
        Result.make(f"m{n}", family="resnet", status="ok", scores={"acc": n / 50, "acc5": n / 50}) for n in range(50)
    ]
    board = build(results, dataset={})
    (group,), shown = board.groups, rows(board)
    best, rest = charts.families([group], shown)
    assert len(best.data["models"]) == 30 and len(rest.data["models"]) == len(group.rows) - 30
    assert (best.name, rest.name) == (f"family-{group.slug}-1", f"family-{group.slug}-2")


def test_files_of_charts_stay_in_their_folder_whatever_a_family_is_called() -> None:
    results = [
        Result.make(f"m{n}", family=name, status="ok", scores={"acc": 0.5, "acc5": 0.5})
        for n, name in enumerate(("../../up", "a/b", "@title", "..", "vit", "resnet"))
    ]
    board = build(results, dataset={})
    assert [chart.name for chart in charts.families(board.groups, rows(board))] == ["family-resnet"]
    assert all(re.fullmatch(r"[\w-]+", chart.name) for chart in charts.charts(board, rows(board), None))


def test_equal_architectures_are_found_under_the_names_of_other_libraries() -> None:
    made = [
        {"architecture": "xception65", "pretraining": "in21k", "acc": 0.6},
        {"architecture": "gluon_xception65", "pretraining": "in1k", "acc": 0.5},
        {"architecture": "xception65", "pretraining": "in1k", "acc": 0.4},
        {"architecture": "resnet18", "pretraining": "unknown", "acc": 0.3},
    ]
    assert charts.equal_architectures(made) == [made[:2]]


def test_points_of_two_models_count_every_class_once() -> None:
    assert TABLE is not None
    first, second = ROWS[0]["model"], ROWS[3]["model"]
    points = charts.class_points(TABLE, first, second)
    assert sum(point["count"] for point in points) == len(TABLE.names)
    mean = sum(p["first"] * p["count"] for p in points) / len(TABLE.names)
    assert mean == pytest.approx(TABLE.acc(first).mean())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_tau_equals_scipys(pairs: list[tuple[int, int]]) -> None:
    wanted = kendalltau(*zip(*pairs, strict=True)).statistic if len(pairs) > 1 else math.nan
    found = kendall_tau([acc for acc, _ in pairs], [acc5 for _, acc5 in pairs])
    assert math.isnan(wanted) if found is None else found == pytest.approx(wanted)


def test_the_models_that_disagree_most() -> None:
    found = disagreeing(ROWS)
    gaps = [abs(row["rank"] - row["rank_acc5"]) for row in found]
    assert max(gaps) == max(abs(row["rank"] - row["rank_acc5"]) for row in ROWS)
    sentences = disagreements(ROWS, TABLE)
    assert len(sentences) == len(found)
    assert "In classes with fewer than 5 references its acc is" in "".join(map(str, sentences[0]))
    assert disagreements([row | {"rank_acc5": row["rank"]} for row in ROWS], TABLE) == []


def test_names_do_not_overlap_on_an_axis_that_intervals_widen() -> None:
    rows = [{"acc": 0.5, "acc_low": 0.0, "acc_high": 1.0}, {"acc": 0.48}, {"acc": 0.4}]
    kept = chart.without_overlap(rows, rows)  # .02 are 9 pixels, a name has 14
    assert [row["acc"] for row in kept] == [0.5, 0.4]


def test_the_recommended_model_has_a_label_beside_the_models_whose_ranks_differ_most() -> None:
    (taken,) = (row for row in ROWS if row.get("taken"))
    texts = [text for text in layers(CHARTS["acc-acc5"].spec, "text") if "transform" in text]
    assert texts and all(taken["id"] in text["transform"][0]["filter"]["oneOf"] for text in texts)


def with_distractors(run: Run, total: int = 90_000) -> Run:
    """A run whose models, but the last one, were also measured with distractors."""
    rng, found = np.random.default_rng(0), []
    for result in run.results[:-1]:
        beaten = rng.geometric(1e-4, len(unpack_verdicts(result.verdicts or "").first)) - 1
        fields = {"count": total, "beaten_by": pack_classes(beaten), "acc": {"all": 0.1}, "ci95": {}}
        found.append(Result.from_json({**result.to_json(), "distractors": fields}))
    return dataclasses.replace(run, results=(*found, run.results[-1]))


def test_acc_of_the_leaders_over_the_size_of_the_gallery() -> None:
    run = with_distractors(browsing.a_run(14))
    growth = charts_of(run)["gallery-growth"]
    data = growth.data["growth"]
    assert len({datum["id"] for datum in data}) == 10
    best = ROWS and next(row for row in rows(boards_of(run, browsing.TITLES)[0]))
    curve = [datum for datum in data if datum["id"] == best["id"]]
    sizes, values = [datum["gallery"] for datum in curve], [datum["acc"] for datum in curve]
    assert (sizes[0], sizes[-1]) == (300, 90_300) and sizes == sorted(sizes)
    assert values[0] == pytest.approx(best["acc"], abs=1e-5) and values == sorted(values, reverse=True)
    (result,) = (result for result in run.results if result.model == best["model"])
    right = unpack_verdicts(result.verdicts).first
    beaten = unpack_classes(result.distractors.beaten_by)
    middle = curve[15]
    expected = (right * none_drawn(beaten, 90_000, middle["gallery"] - 300)).mean()
    assert middle["acc"] == pytest.approx(expected, abs=1e-4)
    drawn = svg(growth.standalone).decode()
    assert drawn.startswith("<svg") and best["name"] in drawn
    assert re.findall(r">([\d.]+×)<", drawn) == ["1×", "10×", "100×"]
    assert [datum["last"] for datum in curve] == [False] * (len(curve) - 1) + [True]


def test_the_axis_of_a_gallery_that_hardly_grows_ends_with_it() -> None:
    growth = charts_of(with_distractors(browsing.a_run(2), total=600))["gallery-growth"]
    assert re.findall(r">([\d.]+×)<", svg(growth.standalone).decode()) == ["1×", "3×"]


def test_damaged_counts_draw_no_curve() -> None:
    run = with_distractors(browsing.a_run(2))
    fields = run.results[0].to_json()
    fields["distractors"]["beaten_by"] = "damaged"
    damaged = dataclasses.replace(run, results=(Result.from_json(fields), *run.results[1:]))
    assert "gallery-growth" in charts_of(run) and "gallery-growth" not in charts_of(damaged)
