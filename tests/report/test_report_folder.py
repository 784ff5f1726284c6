from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedcore.errors import UsageError
from embedcore.report.board.export import csv_report, guarded, json_report
from embedcore.report.board.terminal import terminal_report
from embedcore.report.html import drawing
from embedcore.report.report_folder import pages, write_report
from embedcore.results.leaderboard import Leaderboard, build
from embedcore.results.result import Result

Make = Callable[..., Result]
Board = Callable[..., Leaderboard]


def _board(board_of: Board, result_of: Make) -> Leaderboard:
    return board_of(
        [
            result_of("vit_base_patch16_224.augreg_in21k", 0.5, 0.2),
            result_of("resnet18.a1_in1k", 0.25, 0.3, family="resnet", token_mean=None, gmacs=None),
            Result.make("vgg11.tv_in1k", family="vgg", status="oom", reason="=cmd|' /C calc'!A0", detail="a\nb"),
        ]
    )


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_tables_and_page_in_a_folder_that_is_made(tmp_path: Path, board_of: Board, result_of: Make) -> None:
    folder = tmp_path / "new" / "report"
    paths = write_report(folder, [_board(board_of, result_of)], settings={"protocol": "native"})
    tables = ["leaderboard.csv", "leaderboard.json", "leaderboard.md"]
    assert sorted(path.name for path in folder.iterdir()) == ["charts", "index.html", *tables]
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert paths[-1].name == "index.html"
    assert (folder / "leaderboard.md").read_text(encoding="utf-8").startswith("# embedcore leaderboards")


def test_csv_has_a_row_for_every_result(board_of: Board, result_of: Make) -> None:
    rows = _rows(csv_report([_board(board_of, result_of)], {}))
    assert [(row["model"], row["status"], row["rank"], row["rank_acc5"], row["rank_in_family"]) for row in rows] == [
        ("vit_base_patch16_224.augreg_in21k", "ok", "1", "2", "1"),
        ("resnet18.a1_in1k", "ok", "2", "1", "1"),
        ("vgg11.tv_in1k", "oom", "", "", ""),
    ]
    first = rows[0]
    assert (float(first["acc"]), float(first["acc_low"]), float(first["acc_high"])) == pytest.approx((0.5, 0.48, 0.54))
    assert (first["map_at_r"], first["map_at_r_low"]) == ("0.234", "")
    assert (first["input_height"], first["input_width"], first["images_per_s_forward"]) == ("224", "224", "101.5")
    assert (first["weights_source"], first["weights_id"]) == ("hub", "sha256:0123456789abcdef")
    assert rows[1]["gmacs"] == ""
    assert rows[2]["acc"] == ""


def test_csv_cannot_contain_a_formula(board_of: Board, result_of: Make) -> None:
    assert _rows(csv_report([_board(board_of, result_of)], {}))[2]["reason"] == "'=cmd|' /C calc'!A0"
    board = board_of([result_of("@SUM(1)", scores={"acc": 0.1, "acc5": 0.1, "=evil()": -0.5})])
    for row in csv.reader(io.StringIO(csv_report([board], {}), newline="")):
        assert not [
            cell for cell in row if cell.startswith(("=", "+", "@")) or (cell.startswith("-") and cell != "-0.5")
        ]


@pytest.mark.parametrize(("cell", "text"), [("=1", "'=1"), ("+1", "'+1"), ("-x", "'-x"), ("@a", "'@a"), ("a=1", "a=1")])
def test_guarded_text(cell: str, text: str) -> None:
    assert guarded(cell) == text


def test_guarded_leaves_numbers_alone() -> None:
    assert guarded(-0.5) == -0.5
    assert guarded(None) is None


def test_json(tmp_path: Path, board_of: Board, result_of: Make) -> None:
    settings = {"protocol": "native", "cache": Path("c"), "limit": float("inf")}
    write_report(tmp_path, [_board(board_of, result_of)], settings=settings)
    data = json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))
    assert set(data) == {"schema", "settings", "machine", "datetime", "dataset", "rows", "excluded"}
    assert data["schema"] == 1
    assert data["settings"] == {"protocol": "native", "cache": "c", "limit": None}
    assert data["dataset"]["queries"] == 544
    assert [(row["model"], row["rank"], row["rank_acc5"]) for row in data["rows"]] == [
        ("vit_base_patch16_224.augreg_in21k", 1, 2),
        ("resnet18.a1_in1k", 2, 1),
    ]
    assert data["rows"][0]["weights"] == {"source": "hub", "id": "sha256:0123456789abcdef"}
    assert not {"verdicts", "sketch", "durations"} & set(data["rows"][0])
    assert [entry["status"] for entry in data["excluded"]] == ["oom"]


def test_json_and_csv_name_the_machine(board_of: Board, result_of: Make) -> None:
    boards = [_board(board_of, result_of)]
    machine = {"processor": "EPYC", "gpu": "H100", "timm": "1.0.31", "torch": "2.14.1", "cuda": "13.0"}
    assert json.loads(json_report(boards, {}, machine))["machine"] == machine
    for row in _rows(csv_report(boards, machine)):
        assert (row["processor"], row["gpu"], row["timm"], row["torch"]) == ("EPYC", "H100", "1.0.31", "2.14.1")
    assert [(row["device"], row["precision"]) for row in _rows(csv_report(boards, {}))[:2]] == [("cpu", "fp32")] * 2


def test_every_table_shows_when_it_was_measured(tmp_path: Path, board_of: Board, result_of: Make) -> None:
    board, when = _board(board_of, result_of), "2026-11-27T04:12:33.5+00:00"
    write_report(tmp_path, [board], when=when)
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in tmp_path.glob("leaderboard.*")}
    assert json.loads(texts[".json"])["datetime"] == when
    assert {row["datetime"] for row in _rows(texts[".csv"])} == {when}
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in (texts[".md"], page, terminal_report([board], width=200, when=when)):
        assert "measured 2026-11-27 04:12 on cpu" in text
    assert "measured on cpu" in terminal_report([board], width=200)


def test_the_page_explains_all_columns_also_if_the_dataset_is_unknown(result_of: Make) -> None:
    page = pages([build([result_of()], dataset={})], settings={}, machine={})["index.html"].decode()
    assert "acc: share of queries whose nearest neighbour has their class" in page


def test_json_has_credits_and_missing_models_but_no_packed_classes(board_of: Board) -> None:
    boards = [board_of([], credits=["by A"], query_classes="eJwD", class_names=["x"])]
    data = json.loads(json_report(boards, {"roster_missing": [["old", "gone"]]}, {}))
    assert data["dataset"] == {**board_of([]).dataset, "credits": ["by A"]}
    assert data["settings"]["roster_missing"] == [["old", "gone"]]


def test_rows_of_several_datasets_name_theirs(board_of: Board, result_of: Make) -> None:
    left = Result.make("vgg11.tv_in1k", family="vgg", status="oom", reason="")
    boards = [board_of([result_of(acc=0.9), left], name="a"), board_of([result_of(acc=0.1)], name="b")]
    assert [(row["dataset"], row["model"], row["rank"]) for row in _rows(csv_report(boards, {}))] == [
        ("a", "vit_base_patch16_224.augreg_in21k", "1"),
        ("a", "vgg11.tv_in1k", ""),
        ("b", "vit_base_patch16_224.augreg_in21k", "1"),
    ]
    data = json.loads(json_report(boards, {}, {}))
    assert [(row["dataset"], row["rank"]) for row in data["rows"]] == [("a", 1), ("b", 1)]
    assert [(entry["dataset"], entry["model"]) for entry in data["excluded"]] == [("a", "vgg11.tv_in1k")]
    assert data["dataset"]["name"] == "a"
    assert [dataset["name"] for dataset in data["datasets"]] == ["a", "b"]


def test_csv_has_its_columns_also_if_nothing_was_measured(board_of: Board, result_of: Make) -> None:
    full = csv_report([board_of([result_of()])], {}).splitlines()[0].split(",")
    empty = csv_report([board_of([])], {}).splitlines()
    assert [column for column in full if not column.startswith(("acc", "map_at_r"))] == empty[0].split(",")
    assert {"input_height", "weights_source", "images_per_s_forward", "reason", "timm"} <= set(empty[0].split(","))
    assert empty[1:] == []


def test_files_of_an_earlier_run_are_replaced(tmp_path: Path, board_of: Board, result_of: Make) -> None:
    (tmp_path / "leaderboard.csv").write_text("old")
    write_report(tmp_path, [_board(board_of, result_of)])
    assert len(_rows((tmp_path / "leaderboard.csv").read_text(encoding="utf-8"))) == 3


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board_of: Board, result_of: Make
) -> None:
    path = tmp_path / "leaderboard.md"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UsageError, match="No space"):
        write_report(tmp_path, [_board(board_of, result_of)])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file(tmp_path: Path, board_of: Board, result_of: Make) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"report folder .*file.* cannot be written: .*choose another folder"):
            write_report(folder, [_board(board_of, result_of)])


def test_a_folder_in_the_place_of_a_file(tmp_path: Path, board_of: Board, result_of: Make) -> None:
    (tmp_path / "leaderboard.md").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path, [_board(board_of, result_of)])
    assert list(tmp_path.iterdir()) == [tmp_path / "leaderboard.md"]


def test_the_tables_are_written_also_if_drawing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board_of: Board, result_of: Make
) -> None:
    drawing.start_scripts.cache_clear()
    monkeypatch.setattr(drawing, "kept_bundle", lambda: tmp_path.parent / "cache" / "vega.js")
    monkeypatch.setattr(drawing, "_MAKE_SCRIPTS", "import sys; sys.exit('no memory')")
    with pytest.raises(drawing.DrawingFailed, match=r"^charts cannot be drawn: vl-convert ended with 1: no memory"):
        write_report(tmp_path, [_board(board_of, result_of)])
    tables = ["leaderboard.csv", "leaderboard.json", "leaderboard.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == tables


def test_the_process_that_draws_the_files_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board_of: Board, result_of: Make
) -> None:
    monkeypatch.setattr(drawing, "_DRAW", "import sys; sys.exit('no memory')")
    with pytest.raises(drawing.DrawingFailed, match=r"^charts cannot be drawn: vl-convert ended with 1: no memory"):
        write_report(tmp_path, [_board(board_of, result_of)])
    tables = ["leaderboard.csv", "leaderboard.json", "leaderboard.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == tables


def test_the_process_that_draws_ends_with_its_context() -> None:
    with drawing.drawing_process() as draw:
        spec = {"data": {"values": [{"a": 1}]}, "mark": "point", "encoding": {"x": {"field": "a"}}}
        assert draw({"one": spec, "two": spec}).result() == dict.fromkeys(("one", "two"), drawing.svg(spec))
    children = psutil.Process().children()
    with drawing.drawing_process():
        assert len(psutil.Process().children()) == len(children) + 1
    assert psutil.Process().children() == children


def test_the_scripts_of_charts_are_bundled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "cache" / "vega.js"
    monkeypatch.setattr(drawing, "kept_bundle", lambda: kept)
    monkeypatch.setattr(drawing, "_MAKE_SCRIPTS", "print('window.vegaEmbed = 1', end='')")
    for _ in range(2):
        drawing.start_scripts.cache_clear()
        assert drawing.start_scripts()() == "window.vegaEmbed = 1"
        assert kept.read_text() == "window.vegaEmbed = 1"
        monkeypatch.setattr(drawing, "_MAKE_SCRIPTS", "raise SystemExit('not again')")
    drawing.start_scripts.cache_clear()


def test_1800_rows(tmp_path: Path, board_of: Board, many: list[Result]) -> None:
    write_report(tmp_path, [board_of(many)])
    rows = _rows((tmp_path / "leaderboard.csv").read_text(encoding="utf-8"))
    assert sorted(row["model"] for row in rows) == sorted(result.model for result in many)
    data = json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))
    assert (len(data["rows"]), len(data["excluded"])) == (1800, 22)
