from __future__ import annotations

from collections.abc import Callable

import pytest

from embedcore.report.captions import acc5_limit, dataset_line, excluded_summary, exclusion_line, settings_line
from embedcore.results.leaderboard import Exclusion, Leaderboard
from embedcore.results.result import Result

Make = Callable[..., Result]
Board = Callable[[list[Result]], Leaderboard]


def test_dataset_line(board_of: Board) -> None:
    assert dataset_line(board_of([]).dataset) == (
        "emoji: 544 queries, 543 references, 256 classes; acc5 ceiling 0.690; chance acc 0.004; duplicates 3; "
        "lone queries 7 (no reference of their class: left out)"
    )


def test_dataset_line_without_what_is_unknown() -> None:
    assert (
        dataset_line({"name": "my\nphotos", "queries": 2, "lone_queries": 0}) == "my photos: 2 queries; lone queries 0"
    )
    assert dataset_line({"duplicates": {"across": 1, "within": 2}}) == "dataset: ; duplicates across 1, within 2"


@pytest.mark.parametrize(("ceiling", "text"), [(0.6897, "acc5 at most 0.690"), (1.0, ""), (None, "")])
def test_acc5_limit(ceiling: float | None, text: str) -> None:
    assert acc5_limit({"acc5_ceiling": ceiling}) == text


def test_settings_line_names_only_what_is_not_the_default(result_of: Make) -> None:
    default = {"protocol": "native", "point": "pre_logits", "other": 3}
    assert settings_line([result_of()], default) == "measured on cpu"
    assert settings_line([result_of()], {}) == "measured on cpu"
    assert settings_line([result_of(precision="bf16", device="cuda:0")], {"protocol": "square224", "point": "avg"}) == (
        "protocol square224; point avg; precision bf16; measured on cuda:0"
    )
    mixed = [result_of(precision="bf16"), result_of(), result_of(precision="bf16")]
    assert settings_line(mixed, {}) == "precision bf16 (2), fp32 (1); measured on cpu"


def test_exclusion_line() -> None:
    results = tuple(Result.make(f"m{i}.x", family="vit", status="oom", reason="big") for i in range(4))
    assert exclusion_line(Exclusion("oom", "big", results), most_names=3) == "4 oom: big (first: m0.x)"
    assert exclusion_line(Exclusion("oom", "big", results[:2]), most_names=3) == "2 oom: big (m0.x, m1.x)"
    assert exclusion_line(Exclusion("oom", "", results)) == "4 oom: no reason given (m0.x, m1.x, m2.x, m3.x)"


def test_excluded_summary(board_of: Board, result_of: Make) -> None:
    assert excluded_summary(board_of([result_of()])) == ""
    excluded = [Result.make(f"m{i}.x", family="vit", status=s, reason="") for i, s in enumerate(["nan", "oom", "nan"])]
    expected = "Not measured: 3 of 4 models (1 oom, 2 nan)"
    assert excluded_summary(board_of([result_of(), *excluded])) == expected
