"""The first screen's answer, on boards whose ties, speeds and doubts are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import synthetic_runs as made
from hypothesis import given
from hypothesis import strategies as st

from embedcore.report.board import answer
from embedcore.report.board.marks import doubts
from embedcore.results.leaderboard import Leaderboard, boards_of, build
from embedcore.results.result import Result

LABELS = np.repeat(np.arange(60), 6)


def board_of_runs(*models: dict[str, Any], dataset: dict[str, Any] | None = None) -> Leaderboard:
    """The leaderboard of models named m0, m1, …; ``acc`` (default .5) and fields of their results."""
    infos = []
    for number, fields in enumerate(models):
        name = f"m{number}.x"
        hits = made.hits_of(name, LABELS, fields.pop("acc", 0.5))
        infos.append(made.result(name, LABELS, hits, **fields))
    (board,) = boards_of(made.as_run(made.saved(infos, LABELS, dataset=dataset)), {})
    return board


def speed(images_per_s: float, **more: Any) -> dict[str, Any]:
    return {"images_per_s": {"forward": images_per_s}, **more}


BUSY = {"crowded": 1.0}


def test_the_fastest_of_the_tied_models_is_taken() -> None:
    board = board_of_runs(speed(10.0, params_m=3.0), speed(90.0, params_m=9.0), speed(50.0, params_m=5.0))
    taken = answer.take(board)
    assert taken.model == "m1.x" and taken.why == "It is the fastest of the 3 models tied for first."
    assert taken.costs == "9.00 million parameters · 90.0 images/s"
    labels = {pick.model: pick.label for pick in answer.picks(board)}
    assert labels["m1.x"].startswith("Fastest") and labels["m0.x"].startswith("Smallest")


def test_a_model_that_is_both_is_named_once() -> None:
    board = board_of_runs(speed(10.0, params_m=9.0), speed(90.0, params_m=1.0))
    assert answer.take(board).why == "It is the smallest and the fastest of the 2 models tied for first."
    assert [pick.model for pick in answer.picks(board)].count("m1.x") == 1
    board = board_of_runs(speed(10.0, params_m=9.0), speed(90.0, params_m=1.0, acc=0.55))
    assert [pick.label for pick in answer.picks(board)] == ["Smallest, fastest and most accurate of the 2 tied"]


def test_a_doubtful_speed_is_never_the_fastest() -> None:
    board = board_of_runs(speed(500.0, params_m=30.0, **BUSY), speed(90.0, params_m=9.0), speed(50.0, params_m=5.0))
    taken = answer.take(board)
    assert taken.model == "m1.x"
    assert "Doubtful speeds are left out (1 model)." in taken.why
    assert [pick.model for pick in answer.picks(board) if "astest" in pick.label] == ["m1.x"]
    trust = answer.speed_trust(board)
    assert trust.verdict == "no"
    assert trust.lines == ("1 of 3 speeds cannot be trusted: the machine was busy with other work (1 model).",)


def test_if_all_speeds_are_doubtful_the_smallest_is_taken_and_the_pick_says_so() -> None:
    board = board_of_runs(speed(500.0, params_m=30.0, **BUSY), speed(90.0, params_m=9.0, **BUSY))
    assert answer.take(board).model == "m1.x"
    assert answer.take(board).why == (
        "It is the smallest of the 2 models tied for first. None of their speeds can be trusted."
    )
    fast = next(pick for pick in answer.picks(board) if "astest" in pick.label)
    assert fast.model == "m0.x" and "500 images/s (doubtful: the machine was busy with other work)" in fast.costs
    assert answer.speed_trust(board).lines[0].startswith("No speed can be trusted: ")


@given(st.lists(st.tuples(st.floats(1, 1000), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_speeds_are_those_without_doubts_or_all(rows: list[tuple[float, bool, bool]]) -> None:
    results = [
        Result.make(
            f"m{n}",
            family="a",
            status="ok",
            scores={"acc": 0.5, "acc5": 0.1},
            images_per_s={"forward": value},
            batch_decayed=decayed,
            crowded=1.0 if busy else 0.0,
        )
        for n, (value, decayed, busy) in enumerate(rows)
    ]
    board = build(results, dataset={"classes": 50})
    trusted = [result for result in results if not doubts(result)] or results
    found = answer.fastest(board.by_acc)
    assert found is not None and found.result in trusted
    assert found.result.images_per_s["forward"] == max(result.images_per_s["forward"] for result in trusted)


def test_a_leader_that_is_alone_is_taken() -> None:
    board = board_of_runs({"acc": 0.95}, speed(900.0, acc=0.2), speed(900.0, acc=0.2))
    taken, trust = answer.take(board), answer.order_trust(board)
    assert taken.model == "m0.x" and taken.why == "It is significantly better than all others."
    assert answer.picks(board) == ()
    assert trust.verdict == "yes" and "best of 3 models" in trust.lines[0]


def test_ties_are_not_sure_and_say_how_many_classes_would_tell() -> None:
    trust = answer.order_trust(board_of_runs(*({} for _ in range(6))))
    assert trust.verdict == "no" and trust.lines[0] == "All 6 models are tied for first."
    assert "classes like these would separate the two best; there are 60." in trust.lines[1]


def test_the_score_is_a_sentence_for_both_splits(
    result_of: Callable[..., Result], board_of: Callable[..., Leaderboard]
) -> None:
    apart = board_of([result_of(acc=0.5)])
    assert answer.score_text(apart, apart.by_acc[0].result) == (
        "For 50.0 % of the queries (48.0–54.0 %), the nearest reference is of the same class."
    )
    assert answer.measured_on(apart) == "1 model measured on 544 queries and 543 references of 256 classes"
    alone = board_of([result_of(acc=0.5)], references=544)
    assert answer.score_text(alone, alone.by_acc[0].result) == (
        "For 50.0 % of the images (48.0–54.0 %), the nearest other image is of the same class."
    )
    assert answer.measured_on(alone) == "1 model measured on 544 images of 256 classes"
    assert not answer.leave_one_out({"queries": 5, "references": 5, "reference_classes": "x"})


def test_few_classes_have_no_interval_and_no_sure_order(
    result_of: Callable[..., Result], board_of: Callable[..., Leaderboard]
) -> None:
    board = board_of([result_of("a.b", 0.5), result_of("c.d", 0.4)], classes=5)
    assert "(" not in answer.take(board).score and answer.take(board).why == "It has the highest score."
    assert answer.order_trust(board).lines == ("With only 5 classes, differences mean little.",)


def test_random_weights_are_taken_only_if_there_is_nothing_else(
    result_of: Callable[..., Result], board_of: Callable[..., Leaderboard]
) -> None:
    random = {"weights": {"source": "random", "id": "seed:0"}}
    board = board_of([result_of("a.b", 0.9, **random), result_of("c.d", 0.4)])
    assert answer.take(board).model == "c.d"
    only = answer.take(board_of([result_of("a.b", 0.9, **random)]))
    assert only.model == "a.b" and only.caveats == ("Random weights: for testing only.",)


def test_marks_are_caveats(result_of: Callable[..., Result], board_of: Callable[..., Leaderboard]) -> None:
    board = board_of([result_of("a.b", weights={"source": "own:best.pth"}, licence="cc-by-nc-4.0")])
    assert answer.take(board).caveats == ("Your own model, not timm's.", "Not for commercial use.")
    assert not answer.take(board).has_code


def test_a_pick_has_the_marks_of_its_model() -> None:
    board = board_of_runs(speed(10.0, params_m=9.0), speed(90.0, params_m=1.0, licence="cc-by-nc-4.0"))
    (smallest,) = (pick.costs for pick in answer.picks(board) if "mallest" in pick.label)
    assert smallest.endswith("1.00 million parameters · 90.0 images/s · not for commercial use")


@pytest.mark.parametrize(
    ("fields", "verdict", "words"),
    [
        ({}, "yes", "No contention was seen, and processes of the same model differ by up to "),
        ({"processes": []}, "not known", "Each model was timed in one process only"),
        ({"images_per_s": {}}, "not known", "No speed was measured."),
        ({"processor": "another"}, "no", "They come from different devices or machines"),
        (
            {"processes": made.processes([1.0], scatter=0.0)[:1] + made.processes([2.0], scatter=0.0)[:1]},
            "no",
            "Processes of the same model differ by up to 100 %.",
        ),
    ],
)
def test_speeds_that_can_be_compared(fields: dict[str, Any], verdict: str, words: str) -> None:
    both = [fields] if "processor" not in fields else [fields, {}]
    trust = answer.speed_trust(board_of_runs(*map(dict, both)))
    assert (trust.verdict, trust.lines[0][: len(words)]) == (verdict, words)


def test_nothing_measured_has_no_answer(board_of: Callable[..., Leaderboard]) -> None:
    excluded = Result.make("x.y", family="vit", status="no-weights", reason="hub unreachable")
    assert answer.answer(board_of([excluded])) is None


def test_one_model_has_no_order(result_of: Callable[..., Result], board_of: Callable[..., Leaderboard]) -> None:
    board = board_of([result_of()])
    assert answer.order_trust(board).verdict == "not known"
    assert answer.take(board).why == "It is the only model that was measured."
