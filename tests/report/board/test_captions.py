from __future__ import annotations

from collections.abc import Callable

import pytest

from embedcore.report.board.captions import (
    acc5_limit,
    dataset_line,
    excluded_summary,
    exclusion_line,
    has_intervals,
    settings_line,
)
from embedcore.results.leaderboard import Exclusion, Leaderboard
from embedcore.results.result import Result

Make = Callable[..., Result]
Board = Callable[..., Leaderboard]


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


def test_settings_line_names_the_machine_and_what_is_not_the_default(result_of: Make) -> None:
    default = {"protocol": "native", "point": "pre_logits", "other": 3}
    machine = {"processor": "AMD EPYC 7B13, 2 threads", "timm": "1.0.31", "torch": "2.14.1", "cuda": "13.0"}
    assert settings_line([result_of()], default, machine) == (
        "measured on cpu (AMD EPYC 7B13, 2 threads), fp32; timm 1.0.31, torch 2.14.1"
    )
    on_card = [result_of(precision="bf16", device="cuda:0")]
    assert settings_line(on_card, {"protocol": "square224", "point": "avg"}, machine | {"gpu": "NVIDIA H100"}) == (
        "protocol square224; point avg; measured on cuda:0 (NVIDIA H100), bf16; timm 1.0.31, torch 2.14.1, CUDA 13.0; "
        "processor AMD EPYC 7B13, 2 threads"
    )


def test_settings_line_of_what_is_unknown_or_mixed(result_of: Make) -> None:
    assert settings_line([result_of()], {}, {}) == "measured on cpu, fp32"
    mixed = [result_of(precision="bf16", device=device) for device in ("cuda:1", "cpu")] + [result_of(device="cuda:0")]
    assert settings_line(mixed, {}, {"gpu": "A + B", "timm": None}) == (
        "measured on cpu and cuda:1, cuda:0 (A + B), bf16 (2), fp32 (1)"
    )
    assert settings_line([result_of(precision=None, device=None)], {}, {}) == (
        "measured on an unknown device, in an unknown precision"
    )


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (1, "only 1 class: too few for meaningful intervals"),
        (9, "only 9 classes: too few for meaningful intervals"),
        (10, None),
        (None, None),
    ],
)
def test_too_few_classes(classes: int | None, words: str | None) -> None:
    dataset = {"name": "x", "classes": classes}
    assert has_intervals(dataset) == (words is None)
    line = dataset_line(dataset)
    assert ("too few" in line) == (words is not None)
    assert line.endswith(words or "")


def test_exclusion_line(board_of: Board) -> None:
    results = tuple(Result.make(f"m{i}.x", family="vit", status="oom", reason="big") for i in range(4))
    board = board_of(results)
    assert exclusion_line(Exclusion("oom", "big", results), board, most_names=3) == "4 oom: big (first: m0.x)"
    assert exclusion_line(Exclusion("oom", "big", results[:2]), board, most_names=3) == "2 oom: big (m0.x, m1.x)"
    assert exclusion_line(Exclusion("oom", "", results), board) == "4 oom: no reason given (m0.x, m1.x, m2.x, m3.x)"


def test_a_raced_out_model_is_named_with_its_bound(result_of, board_of):
    leader = result_of("a.x", acc=0.5)
    lost = {"classes": 32, "acc": 0.2, "against": "a.x", "acc_against": 0.6, "at_most": 0.5}
    out = [Result.make(f"m{i}.x", family="vit", status="raced-out", reason="behind", race=lost) for i in range(2)]
    board = board_of([leader, *out])
    line = exclusion_line(board.excluded[0], board)
    assert line.startswith("2 raced-out: behind the leader on a sample of the classes (m0.x: acc at most 0.250, m1.x")


def test_excluded_summary(board_of: Board, result_of: Make) -> None:
    assert excluded_summary(board_of([result_of()])) == ""
    excluded = [Result.make(f"m{i}.x", family="vit", status=s, reason="") for i, s in enumerate(["nan", "oom", "nan"])]
    expected = "Not measured: 3 of 4 models (1 oom, 2 nan)"
    assert excluded_summary(board_of([result_of(), *excluded])) == expected
