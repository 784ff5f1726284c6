from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from embedcore.report.board import columns, marks
from embedcore.report.board.details import settings
from embedcore.report.board.export import csv_report, json_report
from embedcore.report.board.markdown import markdown_report
from embedcore.report.board.terminal import terminal_report
from embedcore.report.report_folder import pages
from embedcore.results.leaderboard import Leaderboard, Row
from embedcore.results.result import Result
from embedcore.retrieval.outcomes import PROBES

Make = Callable[..., Result]


def cell(key: str, result: Result) -> str:
    return columns.column(key).cell(Row(1, result))


def footnotes(rows: list[Row], *keys: str) -> list[str]:
    return columns.footnotes(rows, [columns.column(key) for key in keys])


def test_a_column_added_to_the_table_is_in_all_outputs(
    monkeypatch: pytest.MonkeyPatch, board_of: Callable[..., Leaderboard], result_of: Make
) -> None:
    mark = columns.Mark("¤", lambda row: row.result.dim == 768, "made up for this test")
    added = columns.Column(
        "numbers_per_s", lambda row: row.result.dim and row.result.dim * 2, str, "num/s", "numbers/s", marks=(mark,)
    )
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, added))
    monkeypatch.setattr("embedcore.report.board.board_page.COLUMNS", columns.COLUMNS)
    boards = [board_of([result_of()])]
    terminal, markdown = terminal_report(boards, width=300), markdown_report(boards)
    assert "num/s" in terminal and "1536¤" in terminal and "¤ made up for this test" in terminal
    assert "numbers/s" in markdown and "1536¤" in markdown and "¤ made up for this test" in markdown
    assert next(csv.DictReader(io.StringIO(csv_report(boards, {}))))["numbers_per_s"] == "1536"
    assert json.loads(json_report(boards, {}, {}))["rows"][0]["numbers_per_s"] == 1536
    page = pages(boards, settings={}, machine={})["index.html"].decode()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    place = [column["key"] for column in data["columns"]].index("numbers_per_s")
    assert data["columns"][place]["title"] == "num/s" and data["models"][0]["cells"][place] == "1536¤"
    assert "¤ made up for this test" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.00"), (0.3449, "0.34"), (9.996, "10.0"), (12.34, "12.3"), (99.96, "100"), (1234.4, "1234")],
)
def test_figure(value: float | None, text: str) -> None:
    assert columns.figure(value) == text


def test_scores(result_of: Make) -> None:
    result = result_of(acc=0.2617)
    assert columns.score(result, "acc") == "0.262"
    assert columns.score(result, "knn20") == "–"
    assert cell("acc", result) == "0.262 ±.030"
    assert cell("acc", replace(result, ci95={})) == "0.262"


@pytest.mark.parametrize(("size", "text"), [(None, "–"), ((3, 384, 384), "384"), ((3, 256, 128), "256×128")])
def test_input_size(result_of: Make, size: tuple[int, int, int] | None, text: str) -> None:
    assert cell("input_size", result_of(input_size=size)) == text


@pytest.mark.parametrize(
    ("licence", "limited"),
    [
        ("cc-by-nc-4.0", True),
        ("CC-BY-NC-SA-4.0", True),
        ("fair-noncommercial-research-license", True),
        ("apple-amlr", True),
        ("apache-2.0", False),
        ("apple-ascl", False),
        ("cvnets-license", False),
        ("unknown", False),
        (None, False),
    ],
)
def test_non_commercial_licences_are_marked(result_of: Make, licence: str | None, limited: bool) -> None:
    result = result_of(licence=licence)
    assert marks.non_commercial(result) == limited
    assert cell("licence", result).endswith("‡") == limited


def test_marks_and_their_footnotes(result_of: Make) -> None:
    result = result_of(batch_decayed=True, token_mean=True, licence="cc-by-nc-4.0")
    rows = [Row(1, result), Row(2, result_of())]
    assert columns.images_per_s(result) == "102*"
    assert cell("dim", result) == "768†"
    notes = footnotes(rows, "images_per_s", "dim", "licence")
    assert [note[0] for note in notes] == ["*", "†", "‡"]
    assert footnotes(rows, "model") == ["1 of these 2 not for commercial use"]
    assert footnotes(rows[1:], "images_per_s", "dim", "licence") == []


def test_a_speed_beside_other_work_is_marked(result_of: Make) -> None:
    alone, busy = Row(1, result_of(crowded=0.01)), Row(2, result_of(crowded=0.3))
    assert (columns.images_per_s(alone.result), columns.images_per_s(busy.result)) == ("102", "102!")
    assert footnotes([alone], "images_per_s") == footnotes([busy], "model") == []
    (note,) = footnotes([alone, busy], "images_per_s")
    assert note.startswith("! the machine was busy")


@given(st.text(max_size=60), st.integers(1, 70))
def test_a_text_cut_in_the_middle_keeps_both_ends(text: str, longest: int) -> None:
    shown = columns.cut_middle(text, longest)
    if len(text) <= longest:
        assert shown == text
        return
    assert len(shown) == longest
    kept = longest - 1
    first, last = shown[: kept - kept // 2], shown[longest - kept // 2 :]
    assert text.startswith(first) and text.endswith(last) and len(first) + len(last) == kept


def test_weights(result_of: Make) -> None:
    assert columns.weights(result_of()) == "hub sha256:01234567"
    assert columns.weights_source(result_of()) == "hub"
    random = result_of(weights={"source": "random", "id": "seed:0"})
    assert columns.weights(random) == "RANDOM seed:0"
    assert columns.weights_source(random) == "RANDOM"
    assert columns.weights(result_of(weights={})) == cell("weights", result_of(weights={})) == "–"


def test_random_notice(result_of: Make) -> None:
    random = [Row(1, result_of(weights={"source": "random", "id": f"seed:{seed}"})) for seed in (3, 0)]
    assert columns.random_notice([Row(1, result_of())]) is None
    assert columns.random_notice(random[1:]) == "RANDOM WEIGHTS (seed 0): not pretrained, for testing only"
    own = Row(1, result_of(weights={"source": "random", "id": "sha256:01", "entry": "sha256:02"}))
    assert columns.random_notice([own]) == "RANDOM WEIGHTS: not pretrained, for testing only"
    mixed = columns.random_notice([*random, Row(3, result_of())])
    assert mixed == "RANDOM WEIGHTS (seed 0, 3) in 2 of 3 rows: not pretrained, for testing only"


def test_the_documented_columns_in_their_order() -> None:
    keys = [column.key for column in columns.leaderboard_columns()]
    assert keys == [
        *(
            "rank",
            "rank95",
            "model",
            "acc",
            "acc5",
            *("acc_10x", "acc_100x", "acc_all"),
            "map_at_r",
            *PROBES,
            "params_m",
            "gmacs",
            "input_size",
            "dim",
            "images_per_s",
        ),
        *("pretraining", "licence", "weights"),
    ]
    assert [column.key for column in columns.leaderboard_columns("acc5")][3:5] == ["acc5", "acc"]


def test_a_result_without_optional_fields_has_a_cell_in_every_column() -> None:
    row = Row(1, Result.make("a.b", family="vit", status="ok", scores={"acc": 0.5, "acc5": 0.25}))
    cells = {column.key: (column.full or column.cell)(row) for column in columns.leaderboard_columns()}
    assert cells.pop("acc") == "0.500"
    assert cells.pop("acc5") == "0.250"
    assert (cells.pop("rank"), cells.pop("model")) == ("1", "a.b")
    assert set(cells.values()) == {"–"}


def test_the_part_of_a_checkpoint_and_what_was_resized_are_shown(result_of: Make) -> None:
    shown = {"source": "own:best.pth", "id": "sha256:1", "part": "model_ema", "resampled": "pos_embed [1] → [2]"}
    own, folder = (
        result_of(model="ours", weights=shown),
        result_of(weights={**shown, "source": "folder", "file": "a.pth"}),
    )
    assert columns.weights(own) == "own:best.pth (model_ema) sha256:1"
    assert columns.weights(folder) == "folder:a.pth (model_ema) sha256:1"
    assert cell("model", own) == "ours§‖" and cell("model", folder) == f"{folder.model}‖"
    assert "‖ timm resized tensors of the file (resample = true)" in footnotes([Row(1, own)], "model")
    assert ("Resampled tensors", "pos_embed [1] → [2]") in settings(own)


def test_own_models_are_marked(result_of: Make) -> None:
    own = result_of(
        model="ours-v3",
        weights={"source": "own:best.pth", "id": "sha256:1", "classifier": "left out (fc.1.weight)"},
        licence=None,
    )
    folder = result_of(weights={"source": "folder", "id": "sha256:0123456789abcdef", "file": "best.pth"})
    assert cell("model", own) == "ours-v3§¶"
    assert cell("model", folder) == folder.model
    assert columns.weights(own) == "own:best.pth sha256:1" and cell("licence", own) == "–"
    assert columns.weights(folder) == "folder:best.pth sha256:01234567"
    assert footnotes([Row(1, own), Row(2, folder)], "model") == [
        "§ your own model, not timm's",
        "¶ classifier of the file left out (only `head` uses it)",
    ]
    assert ("Classifier", "left out (fc.1.weight)") in settings(own)
    assert footnotes([Row(1, folder)], "model") == []


def test_probes_are_shown_if_they_were_measured(board_of: Callable[..., Leaderboard], result_of: Make) -> None:
    probes = {"probe_ridge": 0.625, "few_shot_1": 0.375}
    plain = result_of("resnet18.a1_in1k", 0.6)
    measured = result_of(scores={"acc": 0.5, "acc5": 0.3, **probes}, ci95={"probe_ridge": (0.6, 0.7)})
    boards = [board_of([measured, plain])]
    terminal, markdown = terminal_report(boards, width=300), markdown_report(boards)
    assert "ridge" in terminal and "1-shot" in terminal and "0.625" in terminal
    assert "logistic  " not in terminal and "probe_logistic" not in markdown
    assert "probe_ridge" in markdown and "few_shot_1" in markdown and "0.375" in markdown
    row = next(row for row in csv.DictReader(io.StringIO(csv_report(boards, {}))) if row["model"] == measured.model)
    assert (row["probe_ridge"], row["probe_ridge_low"], row["few_shot_1"]) == ("0.625", "0.6", "0.375")
    assert "probe_logistic" not in row and "probe_verdicts" not in row
    assert json.loads(json_report(boards, {}, {}))["rows"][1]["scores"]["probe_ridge"] == 0.625
    page = pages(boards, settings={}, machine={})["index.html"].decode()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    shown = {column["key"]: column["optional"] for column in data["columns"]}
    assert (shown["probe_ridge"], shown["few_shot_1"], "probe_logistic" in shown) == (False, True, False)
    assert "k-shot" in page and "k-shot" in terminal
    without = [board_of([plain])]
    assert "shot" not in terminal_report(without, width=300) + markdown_report(without)


def test_larger_galleries_are_shown_if_they_were_measured(
    board_of: Callable[..., Leaderboard], result_of: Make
) -> None:
    beside = {"count": 9999, "beaten_by": "eJwDAAAAAAE=", "acc": {"10x": 0.4321, "all": 0.25}}
    beside["ci95"] = {"10x": [0.4, 0.5], "all": [0.125, 0.375]}
    plain, measured = result_of("resnet18.a1_in1k", 0.6), result_of(distractors=beside)
    boards = [board_of([measured, plain])]
    terminal, markdown = terminal_report(boards, width=300), markdown_report(boards)
    assert "10× gallery" in terminal and "0.432" in terminal and "0.250" in terminal
    assert "acc, 10× gallery" in markdown and "acc, all distractors" in markdown and "0.432" in markdown
    assert "acc, 100× gallery" not in markdown
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(csv_report(boards, {})))}
    assert (rows[measured.model]["acc_10x"], rows[measured.model]["acc_all_low"]) == ("0.4321", "0.125")
    assert rows[plain.model]["acc_10x"] == "" and "beaten_by" not in " ".join(rows[plain.model])
    second, first = json.loads(json_report(boards, {}, {}))["rows"][::-1][:2]
    assert second["distractors"] == {key: beside[key] for key in ("count", "acc", "ci95")}
    assert "distractors" not in first
    without = [board_of([plain])]
    assert "gallery" not in terminal_report(without, width=300) + markdown_report(without)
    assert "acc_10x" not in csv_report(without, {})
