from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.plain import one_line
from embedcore.report.board.markdown import OVERALL_TOP, escape, markdown_report
from embedcore.results.leaderboard import Leaderboard
from embedcore.results.result import Result

Make = Callable[..., Result]
Board = Callable[..., Leaderboard]

MACHINE = {"processor": "AMD EPYC 7B13, 2 threads", "timm": "1.0.31", "torch": "2.14.1"}
RANDOM = {"source": "random", "id": "seed:0"}


def _sections(text: str) -> dict[str, list[list[str]]]:
    """The table rows under each heading; a cell ends at a bar that is not escaped."""
    sections: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
            sections[heading] = []
        elif line.startswith("|") and not line.startswith(("|-", "|:")):
            sections[heading].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return sections


def test_all_columns_and_tables(board_of: Board, result_of: Make) -> None:
    resnet = result_of("resnet18.a1_in1k", 0.6, 0.2, family="resnet")
    sections = _sections(markdown_report([board_of([result_of(), resnet])]))
    assert list(sections) == [
        "embedcore leaderboards",
        "Overall by acc",
        "Overall by acc5",
        "Leader of each family",
        "ViT (1)",
        "ResNet (1)",
    ]
    header, row = sections["ViT (1)"]
    assert dict(zip(header, row, strict=True)) == {
        "rank": "1",
        "model": "vit_base_patch16_224.augreg_in21k",
        "acc ±": "0.500 ±.030",
        "acc5": "0.300",
        "map_at_r": "0.234",
        "parameters (M)": "85.8",
        "GMACs": "16.9",
        "input size": "224",
        "dim": "768",
        "speed (images/s)": "102",
        "pretraining": "in21k",
        "licence": "apache-2.0",
        "weights": "hub sha256:01234567",
    }
    assert [row[:3] for row in sections["Leader of each family"][1:]] == [
        ["ResNet", "1", resnet.model],
        ["ViT", "2", "vit_base_patch16_224.augreg_in21k"],
    ]


def test_every_result_is_in_its_family_and_every_excluded_one_is_named(board_of: Board, many: list[Result]) -> None:
    text = markdown_report([board_of(many)])
    sections = _sections(text)
    assert [len(sections[f"ViT: {part}"]) for part in ("best 30", "the rest")] == [1 + 30, 1 + 270]
    assert len(sections["Overall by acc"]) == 1 + OVERALL_TOP
    families = [rows for heading, rows in sections.items() if re.search(r"\(\d+\)$|best 30|the rest", heading)]
    shown = [row[1] for rows in families for row in rows[1:]]
    assert sorted(shown) == sorted(escape(result.model) for result in many if result.ok)
    assert all(result.model in text for result in many if not result.ok)


def test_random_weights_are_marked_on_every_table(board_of: Board, result_of: Make) -> None:
    other = result_of("resnet18.a1_in1k", family="resnet", weights=RANDOM)
    text = markdown_report([board_of([result_of(weights=RANDOM), other])])
    tables = [rows for rows in _sections(text).values() if rows]
    assert text.count("**RANDOM WEIGHTS (seed 0): not pretrained, for testing only**") == len(tables) == 5
    assert all(row[-1] == "RANDOM seed:0" for rows in tables for row in rows[1:])


@given(st.text())
def test_escaped_text_has_no_markup_left(text: str) -> None:
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not re.search("[<>]", escaped)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*\[\]~$]", re.sub(r"\\[\\|`*\[\]~$]", "", escaped))
    # Undoing the escapes gives the text back, on one line.
    assert re.sub(r"\\([\\`*\[\]|~$_#+=-])", r"\1", html.unescape(escaped)) == one_line(text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("vit_base_patch16_224.augreg_in21k", "vit_base_patch16_224.augreg_in21k"),
        ("_x_", r"\_x\_"),
        ("a|b`c`", r"a\|b\`c\`"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("# head\n- item", r"\# head - item"),
        ("&lt;", "&amp;lt;"),
        ("back\\|slash", r"back\\\|slash"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_hostile_names_stay_in_their_cell(board_of: Board, result_of: Make) -> None:
    evil = "a|b`<img src=x onerror=alert(1)>\n## Heading"
    board = board_of([result_of(evil, licence=evil), Result.make(evil, family=evil, status="error", reason=evil)])
    text = markdown_report([board])
    assert "<img" not in text
    assert "\n## Heading" not in text
    for rows in _sections(text).values():
        assert len({len(row) for row in rows}) <= 1


def test_machine_versions_and_precision_are_named(board_of: Board, result_of: Make) -> None:
    text = markdown_report([board_of([result_of()])], machine=MACHINE)
    assert "- measured on cpu (AMD EPYC 7B13, 2 threads), fp32; timm 1.0.31, torch 2.14.1\n" in text


def test_few_classes_have_scores_without_intervals(board_of: Board, result_of: Make) -> None:
    text = markdown_report([board_of([result_of()], classes=3)])
    assert "only 3 classes: too few for meaningful intervals" in text
    assert "±" not in text
    assert _sections(text)["Overall by acc"][0][2] == "acc"


def test_credits_and_the_models_that_are_missing(board_of: Board, result_of: Make) -> None:
    missing = [[f"old_{i}", "renamed | gone"] for i in range(12)]
    text = markdown_report(
        [board_of([result_of()], credits=["Emoji by A, CC BY"])], settings={"roster_missing": missing}
    )
    assert "\n- Emoji by A, CC BY\n" in text
    section = text.partition("## Models of the study that are no longer available (12)\n\n")[2]
    assert section.splitlines() == [f"- old_{i}: renamed \\| gone" for i in range(12)]


def test_each_dataset_has_its_part(board_of: Board, result_of: Make) -> None:
    boards = [board_of([result_of()], name="a_*"), board_of([result_of("resnet18.a1_in1k", family="resnet")], name="b")]
    text = markdown_report(boards)
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        r"# embedcore leaderboards: a\_\*",
        "# embedcore leaderboards: b",
    ]
    first, second = text.split("# embedcore leaderboards: b")
    assert ("resnet18" in first, "resnet18" in second) == (False, True)


def test_rows_of_a_single_family_are_shown_once(board_of: Board, result_of: Make, many: list[Result]) -> None:
    alike = [result_of("a.x", 0.5, 0.3), result_of("b.x", 0.4, 0.2)]
    text = markdown_report([board_of(alike)])
    assert list(_sections(text)) == ["embedcore leaderboards", "Overall by acc"]
    assert text.count("a.x") == 1
    of_vit = [result for result in many if result.family == "vit" and result.ok]
    sections = _sections(markdown_report([board_of(of_vit)]))  # more than the overall table shows
    assert len(sections["Overall by acc"]) == 1 + OVERALL_TOP and len(sections["ViT: the rest"]) == 1 + 270
