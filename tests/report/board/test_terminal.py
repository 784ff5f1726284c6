from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcore.report.board.columns import leaderboard_columns
from embedcore.report.board.terminal import fit, terminal_report
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.result import Result

Make = Callable[..., Result]
Board = Callable[..., Leaderboard]

LONG = "vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k"  # 56 characters: the longest of timm 1.0.31


def _tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of each table, by the heading above it; two blanks end a cell."""
    tables: dict[str, list[list[str]]] = {}
    for block in text.split("\n\n"):
        lines = block.splitlines()
        rule = next((i for i, line in enumerate(lines) if re.fullmatch(r"-+(  -+)+", line)), None)
        if rule is not None:
            spans = [match.span() for match in re.finditer("-+", lines[rule])]
            rows = [lines[rule - 1]]
            for line in lines[rule + 1 :]:
                if line.startswith(("…", "*", "†", "‡", "≈", "!", "§", "¶", "‖")) or " of these " in line:
                    break
                rows.append(line)
            tables[lines[0]] = [[row[a:b].strip() for a, b in spans] for row in rows]
    return tables


def _few(result_of: Make) -> list[Result]:
    return [
        result_of("vit_base_patch16_224.augreg_in21k", 0.5, 0.3),
        result_of("vit_tiny_patch16_224.augreg_in21k", 0.4, 0.35, licence="cc-by-nc-4.0"),
        result_of("resnet18.a1_in1k", 0.45, 0.2, family="resnet", batch_decayed=True),
        Result.make("vgg11.tv_in1k", family="vgg", status="oom", reason="out of memory"),
    ]


def test_every_leaderboard_is_shown_with_its_rows_in_order(board_of: Board, result_of: Make) -> None:
    text = terminal_report([board_of(_few(result_of))], width=120)
    tables = {heading.partition(";")[0]: rows for heading, rows in _tables(text).items()}
    vit, tiny, resnet = (result.model for result in _few(result_of)[:3])
    models = {heading: [row[rows[0].index("model")] for row in rows[1:]] for heading, rows in tables.items()}
    assert models == {
        "ViT (2 models)": [vit, tiny],
        "ResNet (1 model)": [resnet],
        "Leader of each family, the best first": [vit, resnet],
        "Overall by acc (3 models)": [vit, resnet, tiny],
        "Overall by acc5 (3 models)": [tiny, vit, resnet],
    }
    assert tables["Overall by acc (3 models)"][1][:4] == ["1", vit, "0.500 ±.030", "0.300"]
    assert tables["Overall by acc5 (3 models)"][1][:4] == ["1", tiny, "0.350 ±.010", "0.400"]
    assert tables["Leader of each family, the best first"][2][:3] == ["resnet", "2", resnet]


def test_the_conditions_of_the_numbers_are_shown(board_of: Board, result_of: Make) -> None:
    text = terminal_report([board_of(_few(result_of))], width=200, settings={"protocol": "square224"})
    assert "544 queries, 543 references, 256 classes; acc5 ceiling 0.690; chance acc 0.004; duplicates 3" in text
    assert "lone queries 7" in text
    assert "protocol square224" in text
    assert text.count("acc5 at most 0.690") == 5
    assert "1 oom: out of memory (vgg11.tv_in1k)" in text
    assert "102*" in text
    assert "speed not comparable" in text
    assert "‡ not for commercial use" in text


def test_80_columns_show_the_most_important(board_of: Board, result_of: Make) -> None:
    text = terminal_report([board_of(_few(result_of))], width=80)
    assert _tables(text)["ViT (2 models); acc5 at most 0.690"][0] == ["#", "model", "acc", "acc5", "M", "img/s"]


def test_a_wide_terminal_shows_every_column(board_of: Board, result_of: Make) -> None:
    text = terminal_report([board_of(_few(result_of))], width=200)
    columns = [column.heading for column in leaderboard_columns() if column.key != "rank95" and not column.sparse]
    assert _tables(text)["ViT (2 models); acc5 at most 0.690"][0] == columns


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_lines_keep_to_the_width_and_names_and_acc5_are_there(
    board_of: Board, result_of: Make, many: list[Result], width: int
) -> None:
    leader = result_of(LONG, 0.999, family="efficientformer", weights={"source": "random", "id": "seed:0"})
    text = terminal_report([board_of([*many, leader])], width=width)
    assert max(map(len, text.splitlines())) <= width
    whole = text.count(LONG)
    shown = [row for rows in _tables(text).values() for row in rows if any(_is_shown(LONG, cell) for cell in row)]
    assert len(shown) == 4  # its family, the leaders, overall by acc and by acc5
    assert whole >= {80: 0, 100: 3}.get(width, 4)
    for rows in _tables(text).values():
        assert {"acc", "acc5", "model"} <= set(rows[0])


def _is_shown(name: str, cell: str) -> bool:
    """Whether a cell is that name, whole or with its beginning, middle or end left out."""
    parts = cell.split("…")
    return cell == name or (len(parts) > 1 and len(max(parts, key=len)) > 4 and all(part in name for part in parts))


def test_names_lose_what_they_share_in_a_narrow_terminal_but_not_their_marks(board_of: Board, result_of: Make) -> None:
    names = [f"{LONG}_lite{number}.in1k" for number in range(3)]
    weights = [{"source": "hub"}, {"source": "hub"}, {"source": "own:best.pth"}]
    results = [result_of(name, 0.5 - n / 10, weights=weights[n]) for n, name in enumerate(names)]
    text = terminal_report([board_of(results)], width=44)
    overall = next(rows for heading, rows in _tables(text).items() if heading.startswith("Overall by acc (3 models)"))
    shown = [row[1] for row in overall[1:]]
    assert all(name.startswith("…") and f"lite{n}" in name for n, name in enumerate(shown))
    assert [name.endswith("§") for name in shown] == [False, False, True]
    assert max(map(len, text.splitlines())) <= 44


@pytest.mark.parametrize(("width", "columns"), [(50, ["#", "model", "acc", "acc5"]), (40, ["#", "model", "acc"])])
def test_a_name_is_shortened_before_acc5_is_dropped(
    board_of: Board, result_of: Make, width: int, columns: list[str]
) -> None:
    text = terminal_report([board_of([result_of(LONG)])], width=width)
    (rows,) = (rows for heading, rows in _tables(text).items() if heading.startswith("Overall by acc (1 model)"))
    assert rows[0] == columns
    assert _is_shown(LONG, rows[1][1]) and rows[1][1] != LONG
    assert max(map(len, text.splitlines())) <= width


@given(width=st.integers(60, 250), lengths=st.lists(st.integers(3, 60), min_size=1, max_size=12), random=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_columns_are_dropped_least_important_first(
    result_of: Make, board_of: Board, width: int, lengths: list[int], random: bool
) -> None:
    weights = {"weights": {"source": "random", "id": "seed:0"}} if random else {}
    rows = board_of([result_of("m" * n + f"{i}.x", i / 20, **weights) for i, n in enumerate(lengths)]).by_acc
    kept = {column.key for column in fit(leaderboard_columns(), rows, width)}
    assert {"rank", "model", "acc"} <= kept
    assert "weights" in kept or not random
    order = sorted(leaderboard_columns(), key=lambda column: column.drop)
    ranked = [column.key in kept for column in order if column.key != "weights"]
    assert ranked == sorted(ranked, reverse=True)
    wider = {column.key for column in fit(leaderboard_columns(), rows, width + 10)}
    assert kept <= wider


def test_the_top_ten_and_where_the_rest_is(board_of: Board, many: list[Result]) -> None:
    text = terminal_report([board_of(many)], width=80)
    tables = _tables(text)
    assert len(tables["ViT (300 models); acc5 at most 0.690"]) == 1 + 10
    assert len(tables["Overall by acc (1,800 models); acc5 at most 0.690"]) == 1 + 10
    assert len(tables["Leader of each family, the best first; acc5 at most 0.690"]) == 1 + 36
    assert "… 290 more; --embed-report DIR writes all of them" in text
    assert "… 290 more; all are in out/leaderboard.md" in terminal_report([board_of(many)], width=80, report_dir="out")
    assert len(text.splitlines()) < 700


def test_1822_models_without_weights_are_a_few_lines(board_of: Board) -> None:
    excluded = [
        Result.make(f"m{i}.x", family="vit", status="no-weights", reason=f"m{i}.x: hub unreachable")
        for i in range(1822)
    ]
    text = terminal_report([board_of(excluded)], width=80)
    assert "1822 no-weights: <model>: hub unreachable (first: m0.x)" in text
    assert "Not measured: 1822 of 1822 models (1822 no-weights)" in text
    assert len(text.splitlines()) <= 5


def test_many_different_reasons_are_counted(board_of: Board) -> None:
    excluded = [Result.make(f"m{i}.x", family="vit", status="error", reason=f"E{i} " * 400) for i in range(50)]
    text = terminal_report([board_of(excluded)], width=80)
    assert "45 error for 45 other reasons" in text
    assert len(text.splitlines()) < 40


def test_random_weights_are_marked_on_every_table(board_of: Board, result_of: Make) -> None:
    weights = {"source": "random", "id": "seed:0"}
    results = [result_of(LONG, weights=weights), result_of("resnet18.a1_in1k", family="resnet", weights=weights)]
    text = terminal_report([board_of(results)], width=80)
    tables = _tables(text)
    assert len(tables) == 5
    assert text.count("RANDOM WEIGHTS (seed 0): not pretrained, for testing only") == len(tables)
    for rows in tables.values():
        assert {row[rows[0].index("weights")] for row in rows[1:]} == {"RANDOM"}


def test_hostile_text_cannot_reach_the_terminal(board_of: Board) -> None:
    reason = "\x1b]0;owned\x07\nFAKE LINE\x9b31m"
    text = terminal_report(
        [board_of([Result.make("a.b\x1b[2J", family="vit", status="error", reason=reason)])], width=80
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "\nFAKE" not in text


def test_no_results(board_of: Board) -> None:
    assert "544 queries" in terminal_report([board_of([])], width=80)


MACHINE = {"gpu": "NVIDIA H100", "processor": "AMD EPYC 7B13, 2 threads", "timm": "1.0.31", "torch": "2.14.1"}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_machine_credits_and_missing_models_are_named_within_the_width(
    board_of: Board, result_of: Make, width: int
) -> None:
    missing = [(f"gluon_xception{i}", "its weights are in no tag of timm any more " * 3) for i in range(12)]
    board = board_of([result_of(device="cuda:0", precision="bf16")], credits=["Emoji by A, CC BY", "Others by B"])
    text = terminal_report([board], width=width, machine=MACHINE, settings={"roster_missing": missing})
    assert max(map(len, text.splitlines())) <= width
    assert "Emoji by A, CC BY\nOthers by B\n" in text
    words = " ".join(text.split())
    assert "measured on cuda:0 (NVIDIA H100), bf16; timm 1.0.31, torch 2.14.1; processor AMD EPYC 7B13, 2 thr" in words
    assert "Models of the study that are no longer available: 12 gluon_xception0: its weights are in no tag" in words
    assert "… 9 more; --embed-report DIR writes all of them" in words


def test_few_classes_have_scores_without_intervals(board_of: Board, result_of: Make) -> None:
    text = terminal_report([board_of(_few(result_of), classes=3)], width=200)
    assert "only 3 classes: too few for meaningful intervals" in " ".join(text.split())
    assert "±" not in text
    assert _tables(text)["ViT (2 models); acc5 at most 0.690"][1][:4] == [
        "1",
        _few(result_of)[0].model,
        "0.500",
        "0.300",
    ]
    assert "±" in terminal_report([board_of(_few(result_of), classes=10)], width=200)


def test_each_dataset_has_its_part_under_its_name(board_of: Board, result_of: Make) -> None:
    boards = [board_of([result_of()], name="a"), board_of([result_of("resnet18.a1_in1k", family="resnet")], name="b")]
    text = terminal_report(boards, width=80)
    first, second = text.split("=== b ===\n\n")
    assert first.startswith("=== a ===\n\na: 544 queries")
    assert second.startswith("b: 544 queries")
    assert ("resnet18" in first, "resnet18" in second) == (False, True)
    assert "===" not in terminal_report(boards[:1], width=80)


def test_rows_of_a_single_family_are_shown_once(board_of: Board, result_of: Make) -> None:
    of_vit = [result for result in _few(result_of) if result.family == "vit"]
    headings = [heading.partition(";")[0] for heading in _tables(terminal_report([board_of(of_vit)], width=120))]
    assert headings == ["Overall by acc (2 models)", "Overall by acc5 (2 models)"]  # of another order
    alike = [result_of("a.x", 0.5, 0.3), result_of("b.x", 0.4, 0.2)]
    text = terminal_report([board_of(alike)], width=120)
    assert [heading.partition(";")[0] for heading in _tables(text)] == ["Overall by acc (2 models)"]
    assert text.count("a.x") == text.count("b.x") == 1
