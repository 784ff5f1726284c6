"""The first screen's findings, against brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import synthetic_runs as made
from hypothesis import given
from hypothesis import strategies as st

from embedcore.report.board import findings
from embedcore.report.board.findings import Named, Sentence
from embedcore.results.leaderboard import Leaderboard, boards_of, build
from embedcore.results.result import Result

Board = Callable[..., Leaderboard]


def models_of(sentences: Sequence[findings.Sentence]) -> list[str]:
    return [part.model for sentence in sentences for part in sentence if isinstance(part, Named)]


def words_of(sentences: Sequence[findings.Sentence]) -> str:
    return "\n".join(map(plain, sentences))


@st.composite
def boards(draw: st.DrawFn) -> Leaderboard:
    """Models of which some lack parameters or speed, or were measured in a smaller batch."""
    numbers = st.one_of(st.none(), st.floats(0.01, 1e4))
    results = [
        Result.make(
            f"m{place}",
            family=draw(st.sampled_from("abc")),
            status="ok",
            params_m=draw(numbers),
            images_per_s={} if (speed := draw(numbers)) is None else {"forward": speed},
            batch_decayed=draw(st.booleans()),
            scores={"acc": draw(st.sampled_from((0.1, 0.2, 0.3, 0.4))), "acc5": 0.1},
        )
        for place in range(draw(st.integers(1, 12)))
    ]
    return build(results, dataset={"classes": 50})


def plain(sentence: Sentence) -> str:
    return "".join(part.model if isinstance(part, Named) else part for part in sentence)


def best(results: list[Result]) -> Result | None:
    return min(results, key=lambda result: (-result.scores["acc"], result.model), default=None)


@given(boards())
def test_the_best_of_a_size_equals_brute_force(board: Leaderboard) -> None:
    results = [row.result for row in board.by_acc]
    output = list(findings.best_of_sizes(board))
    for size in findings.SIZES:
        wanted = best([result for result in results if result.params_m is not None and result.params_m < size])
        found = [s for s in output if f"{size}" in plain(s[:1]).replace(",", "").split()]
        assert [models_of([sentence])[0] for sentence in found] == ([wanted.model] if wanted else [])


@given(boards())
def test_each_speed_has_the_best_model_that_reaches_it(board: Leaderboard) -> None:
    timed = [row.result for row in board.by_acc if row.result.images_per_s]
    trusted = [result for result in timed if not result.batch_decayed]
    output = list(findings.best_of_speeds(board))
    if timed and not trusted:
        assert plain(output.pop(0)) == "No speed can be trusted:"
    for sentence in output:
        need = float(plain(sentence[:1]).split()[2].replace(",", ""))
        fast = [result for result in trusted or timed if result.images_per_s["forward"] >= need]
        chosen = best(fast)
        assert chosen is not None and models_of([sentence]) == [chosen.model]
    assert len(set(models_of(output))) == len(output)


def test_models_that_are_best_under_several_sizes_are_named_once(
    result_of: Callable[..., Result], board_of: Board
) -> None:
    board = board_of([result_of("small.a", 0.5, params_m=4.0), result_of("large.a", 0.6, params_m=80.0)])
    assert words_of(list(findings.best_of_sizes(board))) == (
        "Below 5, 10 and 25 million parameters: small.a, acc 0.500 with 4.00 million.\n"
        "Below 100 million parameters: large.a, acc 0.600 with 80.0 million."
    )


def ranked_board(accs: Sequence[float], classes: int = 60) -> Leaderboard:
    labels = np.repeat(np.arange(classes), 6)
    infos = [made.result(f"m{n}.x", labels, made.hits_of(f"m{n}", labels, acc)) for n, acc in enumerate(accs)]
    (board,) = boards_of(made.as_run(made.saved(infos, labels)), {})
    return board


def test_a_winner_that_others_are_tied_with_is_not_called_the_best() -> None:
    output = words_of(list(findings.best_by_acc5(ranked_board([0.5] * 6))))
    assert "5 other models are not significantly worse: " in output
    assert " and 1 more.\n" in output and output.endswith(".") and "separate the two best" in output


def test_a_winner_far_ahead_is_significantly_best() -> None:
    found = list(findings.best_by_acc5(ranked_board([0.95, 0.2, 0.2])))
    assert words_of(found).endswith("It is significantly better than all others.")
    assert models_of(found) == ["m0.x"]


def test_without_verdicts_nothing_is_said_of_ties() -> None:
    labels = np.repeat(np.arange(20), 5)
    infos = [made.result(f"m{n}.x", labels, made.hits_of(f"m{n}", labels, 0.5), verdicts=None) for n in range(2)]
    (board,) = boards_of(made.as_run(made.saved(infos, labels)), {})
    assert len(list(findings.best_by_acc5(board))) == 1


def test_the_families_that_differ_most_have_three_models_or_more(
    result_of: Callable[..., Result], board_of: Board
) -> None:
    results = [result_of(f"v{n}", 0.1 * n, family="vit") for n in range(1, 4)]
    results += [result_of(f"r{n}", 0.8 * n, family="resnet") for n in range(2)]
    assert words_of(list(findings.spreads(board_of(results)))) == "ViT, 3 models: acc 0.100 by v1 to 0.300 by v3."


@pytest.mark.parametrize("fields", [{}, {"images_per_s": {"forward": 12.0}}, {"params_m": 3.0}])
def test_a_result_with_scores_only_is_no_error(fields: dict[str, object]) -> None:
    board = build(
        [Result.make("own", family="other", status="ok", scores={"acc": 0.5, "acc5": 0.2}, **fields)], dataset={}
    )
    assert findings.findings(board)[0].heading == "Best by acc5"
    assert findings.facts(board, {}, {}) == []


def test_nothing_measured_has_no_findings(board_of: Board) -> None:
    board = board_of([Result.make("x.y", family="vit", status="no-weights", reason="hub unreachable")])
    assert findings.findings(board) == []
    assert findings.warnings(board) == ["Not measured: 1 of 1 models (1 no-weights)"]


def test_facts_name_what_was_measured(result_of: Callable[..., Result], board_of: Board) -> None:
    settings = {"protocol": "native", "point": "pre_logits", "max_classes": 256, "max_per_class": None, "seed": 0}
    machine = {"timm": "1.0.31", "torch": "2.14", "processor": "a CPU", "gpu": None}
    found = dict(findings.facts(board_of([result_of()]), settings, machine, "2026-11-24T12:00:00+00:00"))
    assert found == {
        "Images": "544 queries, 543 references",
        "Classes": "256",
        "Highest possible acc5": "0.690",
        "acc by chance": "0.004",
        "Duplicate images": "3",
        "Queries without a reference": "7, left out",
        "Protocol": "native, point pre_logits, at most 256 classes (seed 0)",
        "Measured on": "cpu, fp32",
        "Processor": "a CPU",
        "Versions": "timm 1.0.31, torch 2.14",
        "Measured at": "2026-11-24 12:00",
    }
