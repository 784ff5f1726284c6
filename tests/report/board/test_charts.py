"""Specifications of charts: what they show, and that each is drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import browsing
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from embedcore.report.board import charts
from embedcore.report.board.charts import AXES, Axis
from embedcore.report.board.findings import disagreements
from embedcore.report.board.rows import rows
from embedcore.report.html import chart
from embedcore.report.html.chart import HEIGHT, Chart
from embedcore.report.html.drawing import svg
from embedcore.report.html.theme import theme_of
from embedcore.results.agreement import kendall_tau
from embedcore.results.class_table import ClassTable, class_table
from embedcore.results.leaderboard import Leaderboard, boards_of, build
from embedcore.results.result import Result
from embedcore.results.run import Run


def parts_of(run: Run) -> tuple[Leaderboard, list[dict[str, Any]], ClassTable | None]:
    (board,) = boards_of(run, browsing.TITLES)
    return board, rows(board), class_table((row.result for row in board.by_acc), board.dataset)


def charts_of(run: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts.charts(*parts_of(run))}


RUN = browsing.a_run()
BOARD, ROWS, TABLE = parts_of(RUN)
CHARTS = charts_of(RUN)

values = st.sampled_from([None, 0.0, 1.0, 2.0, 3.0, 4.0])


@given(st.lists(st.tuples(st.sampled_from((0.1, 0.2, 0.3)), values, st.booleans()), max_size=12), st.sampled_from(AXES))
def test_the_front_equals_brute_force(models: list[tuple[float, float | None, bool]], axis: Axis) -> None:
    made = [
        {"id": n, "acc": acc, axis.field: value, "decayed": decayed and axis.name == "speed"}
        for n, (acc, value, decayed) in enumerate(models)
    ]
    usable = [row for row in made if row[axis.field] and not row["decayed"]]

    def beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        sign = -1 if axis.less else 1
        a, b = (one["acc"], sign * one[axis.field]), (other["acc"], sign * other[axis.field])
        return a != b and a[0] >= b[0] and a[1] >= b[1]

    wanted = {(row["acc"], row[axis.field]) for row in usable if not any(beats(other, row) for other in usable)}
    found = charts.pareto_front(made, axis)
    assert {(row["acc"], row[axis.field]) for row in found} == wanted
    assert len(found) == len(wanted)
    assert [row["acc"] for row in found] == sorted(row["acc"] for row in found)


def marks(spec: Any) -> set[str]:
    if isinstance(spec, dict):
        own = {str(spec["mark"].get("type"))} if isinstance(spec.get("mark"), dict) else set()
        return own.union(*map(marks, spec.values()))
    return set().union(*map(marks, spec)) if isinstance(spec, list) else set()


def test_every_chart_of_a_run_is_there() -> None:
    wanted = {"leaders-acc", "leaders-acc5", "acc-speed", "acc-parameters", "acc-gmacs", "acc-acc5", "families"}
    wanted |= {"classes", "pretraining", "family-resnet", "family-efficientnet"}
    assert set(CHARTS) == wanted
    assert "rule" in marks(CHARTS["leaders-acc"].spec)  # the intervals


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
        assert all(theme_of(row["family"]).colour in drawn for row in ROWS)


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
    assert "rule" not in marks(found["leaders-acc"].spec)


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


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.field)
def test_names_on_the_front_do_not_cover_each_other(axis: Axis) -> None:
    shown = [row for row in parts_of(browsing.a_run(200))[1] if row.get(axis.field)]
    best = charts.pareto_front(shown, axis)
    accs = [row["acc"] for row in shown]
    named = sorted(row["acc"] for row in chart.without_overlap(best, shown))
    pixels = np.diff(named) * HEIGHT / (max(accs) - min(accs))
    assert best[-1]["acc"] == named[-1] and (pixels >= chart._LABEL_HEIGHT - 1e-9).all()


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
    found = kendall_tau([{"acc": acc, "acc5": acc5} for acc, acc5 in pairs])
    assert math.isnan(wanted) if found is None else found == pytest.approx(wanted)


def test_the_models_that_disagree_most() -> None:
    found = disagreements(ROWS, TABLE)
    gaps = [abs(each.row["rank"] - each.row["rank_acc5"]) for each in found]
    assert max(gaps) == max(abs(row["rank"] - row["rank_acc5"]) for row in ROWS)
    assert "In classes with fewer than 5 references its acc is" in "".join(map(str, found[0].why))
    assert disagreements([row | {"rank_acc5": row["rank"]} for row in ROWS], TABLE) == []
