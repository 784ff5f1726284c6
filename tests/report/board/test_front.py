"""The Pareto front of models, and which of its neighbours are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import browsing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.report.board.front import AXES, Axis, pareto_front, ties, told_apart
from embedcore.report.board.rows import rows
from embedcore.results.leaderboard import boards_of

values = st.sampled_from([None, 0.0, 1.0, 2.0, 3.0, 4.0])
models = st.lists(
    st.tuples(st.sampled_from((0.1, 0.2, 0.3)), values, st.booleans(), st.sampled_from((None, "busy"))), max_size=12
)


@given(models, st.sampled_from(AXES))
def test_the_front_equals_brute_force(models: list[tuple[float, float | None, bool, str | None]], axis: Axis) -> None:
    speed = axis.name == "speed"
    made = [
        {"id": n, "acc": acc, axis.field: value, "decayed": decayed and speed, "doubts": doubts}
        for n, (acc, value, decayed, doubts) in enumerate(models)
    ]
    usable = [row for row in made if row[axis.field] and not row["decayed"]]
    usable = [row for row in usable if not (speed and row["doubts"])] or usable

    def beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        sign = -1 if axis.less else 1
        a, b = (one["acc"], sign * one[axis.field]), (other["acc"], sign * other[axis.field])
        return a != b and a[0] >= b[0] and a[1] >= b[1]

    wanted = {(row["acc"], row[axis.field]) for row in usable if not any(beats(other, row) for other in usable)}
    found = pareto_front(made, axis)
    assert {(row["acc"], row[axis.field]) for row in found} == wanted
    assert len(found) == len(wanted)
    assert [row["acc"] for row in found] == sorted(row["acc"] for row in found)


def ranked(low: int, high: int) -> dict[str, Any]:
    return {"rank95_low": low, "rank95_high": high}


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (ranked(1, 2), ranked(3, 5), True),
        (ranked(3, 5), ranked(1, 2), True),
        (ranked(1, 3), ranked(3, 5), False),
        (ranked(1, 9), ranked(3, 5), False),
        (ranked(1, 2), {}, False),
    ],
)
def test_models_are_told_apart_by_the_intervals_of_their_ranks(
    one: dict[str, Any], other: dict[str, Any], apart: bool
) -> None:
    assert told_apart(one, other) == apart


def test_ties_are_neighbours_on_the_front() -> None:
    front = [ranked(7, 8), ranked(5, 7), ranked(3, 4), ranked(1, 2), ranked(1, 2)]
    assert [len(group) for group in ties(front)] == [2, 1, 2]
    assert list(ties([])) == []


def test_each_row_names_the_fronts_that_it_is_on() -> None:
    (board,) = boards_of(browsing.a_run(), browsing.TITLES)
    shown = rows(board)
    for axis in AXES:
        on = [row["id"] for row in shown if axis.name in row.get("front", ())]
        assert on == sorted(row["id"] for row in pareto_front(shown, axis))
