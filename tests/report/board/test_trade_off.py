"""The charts of acc against a cost, as they are drawn: the front, its ties and its labels, against brute force."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.report.board.front import AXES, Axis, comparable, pareto_front
from embedcore.report.board.trade_off import trade_off
from embedcore.report.html.chart import ACCENT, LABEL_HEIGHT
from embedcore.report.html.drawing import svg

SPEED, PARAMETERS = AXES[:2]
few = settings(max_examples=25, deadline=None)  # each draws an SVG


def row(number: int, acc: float, axis: Axis, cost: float | None, **more: Any) -> dict[str, Any]:
    known = {"id": number, "name": f"m{number}", "title": "ViT", "family": "vit", "acc": acc, axis.field: cost}
    return {key: value for key, value in (known | more).items() if value is not None}


def drawn(rows: list[dict[str, Any]], axis: Axis) -> str:
    chart = trade_off(rows, axis, {})
    return "" if chart is None else svg(chart.standalone).decode()


def marks(picture: str, kind: str) -> list[tuple[str, str]]:
    """The description and the other attributes of each mark."""
    pattern = rf'<\w+ aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="{kind}"([^>]*)>'
    return re.findall(pattern, picture)


costs = st.sampled_from([None, 0.0, 1.0, 2.0, 3.0, 4.0])
models = st.lists(
    st.tuples(st.sampled_from((0.1, 0.2, 0.3)), costs, st.booleans(), st.sampled_from((None, "busy"))), max_size=12
)


@few
@given(models, st.sampled_from(AXES))
def test_the_models_in_blue_are_the_front(
    models: list[tuple[float, float | None, bool, str | None]], axis: Axis
) -> None:
    speed = axis.name == "speed"
    made = [
        row(n, acc, axis, cost, decayed=decayed and speed, doubts=doubts)
        for n, (acc, cost, decayed, doubts) in enumerate(models)
    ]
    points = [(of, rest) for of, rest in marks(drawn(made, axis), "point")]
    names = {re.search(r"model: (m\d+)", of)[1]: ACCENT in rest for of, rest in points}  # type: ignore[index]
    assert names.keys() == {each["name"] for each in comparable(made, axis)}
    blue = {(each["acc"], each[axis.field]) for each in made if names.get(each["name"])}
    wanted = pareto_front(made, axis)
    assert blue == {(each["acc"], each[axis.field]) for each in wanted}
    assert sum(names.values()) == len(wanted)


def ranked(number: int, acc: float, params: float, low: int, high: int) -> dict[str, Any]:
    interval = {"acc_low": acc - 0.01, "acc_high": acc + 0.01}
    return row(number, acc, PARAMETERS, params, rank95_low=low, rank95_high=high, **interval)


def test_stairs_join_neighbours_whose_ranks_differ_and_a_band_covers_ties() -> None:
    made = [ranked(0, 0.9, 80.0, 1, 2), ranked(1, 0.89, 40.0, 1, 2), ranked(2, 0.7, 5.0, 3, 3)]
    made.append(ranked(3, 0.6, 50.0, 4, 4))  # not on the front
    picture = drawn(made, PARAMETERS)
    (band,) = marks(picture, "rect mark")
    assert band[0] == "million parameters: 40; acc: 0.88; to: 80; high: 0.91"
    stairs = [of for of, rest in marks(picture, "rule mark") if "stroke-dasharray" in rest]
    across, up = (
        "million parameters: 40; acc: 0.7; before_cost: 5",
        "million parameters: 40; acc: 0.89; before_score: 0.7",
    )
    assert stairs == [across, up]
    unknown = [{key: value for key, value in each.items() if "rank95" not in key} for each in made]
    picture = drawn(unknown, PARAMETERS)
    assert len(marks(picture, "rect mark")) == 1 and "stroke-dasharray" not in picture


def test_doubtful_speeds_are_outlines_and_not_on_the_front() -> None:
    made = [row(n, 0.5 + n / 10, SPEED, 10.0 * (4 - n)) for n in range(3)]
    assert len(pareto_front(made, SPEED)) == 3
    made[0]["doubts"] = "the machine was busy with other work"
    chart = trade_off(made, SPEED, {})
    assert chart is not None and "Outlines are doubtful speeds, which are not on the front: 1." in chart.note
    outlines = [of for of, rest in marks(drawn(made, SPEED), "point") if ' stroke="#' in rest]
    assert len(outlines) == 1 and "model: m0" in outlines[0]
    every = [each | {"doubts": "busy"} for each in made]
    chart = trade_off(every, SPEED, {})
    assert chart is not None and "All speeds are doubtful." in chart.note and len(pareto_front(every, SPEED)) == 3


def labels(picture: str) -> dict[str, float]:
    """The vertical place of each label."""
    pattern = r'aria-roledescription="text mark"[^>]*translate\([\d.-]+,([\d.-]+)\)[^>]*>(m\d+)</text>'
    return {name: float(place) for place, name in re.findall(pattern, picture)}


@few
@given(
    st.lists(st.tuples(st.one_of(st.floats(0.5, 0.51), st.floats(0, 1)), st.floats(1, 1000)), min_size=1, max_size=15),
    st.integers(0, 14),
)
def test_the_recommended_model_and_the_ends_of_the_front_have_labels_and_none_overlap(
    models: list[tuple[float, float]], recommended: int
) -> None:
    made = [row(n, acc, SPEED, cost) for n, (acc, cost) in enumerate(models)]
    made[recommended % len(made)]["taken"] = True
    front = pareto_front(made, SPEED)
    always = {front[0]["name"], front[-1]["name"], made[recommended % len(made)]["name"]}
    found = labels(drawn(made, SPEED))
    assert always <= found.keys() <= always | {each["name"] for each in front}
    places = sorted(found.values())
    assert all(b - a >= LABEL_HEIGHT - 0.01 for a, b in pairwise(places))


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.field)
def test_other_models_on_the_front_have_labels_where_there_is_room(axis: Axis) -> None:
    made = [row(n, 0.9 - 0.1 * n, axis, 10.0 * (9 - n if axis.less else n + 1)) for n in range(6)]
    assert labels(drawn(made, axis)).keys() == {each["name"] for each in made}
