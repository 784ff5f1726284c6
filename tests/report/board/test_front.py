"""The Pareto front of models, against brute force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import browsing
from hypothesis import given
from hypothesis import strategies as st

from embedcore.report.board.answer import take
from embedcore.report.board.front import AXES, Axis, pareto_front
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


def test_the_rows_name_the_front_of_acc_and_speed_and_the_recommended_model() -> None:
    (board,) = boards_of(browsing.a_run(), browsing.TITLES)
    shown = rows(board)
    assert [row["id"] for row in shown if row.get("front")] == sorted(row["id"] for row in pareto_front(shown, AXES[0]))
    assert [row["model"] for row in shown if row.get("taken")] == [take(board).model]
