"""``embedcore report``: from saved runs to a folder, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import records
import synthetic_runs as made

from embedcore.cli import main
from embedcore.results.reading import read_run
from embedcore.results.result import Result

CLASSES = np.repeat(np.arange(20), 5)
MODELS = ("vit_tiny.in1k", "vit_small.in1k", "resnet18.a1_in1k")


def save(path: Path, models: tuple[str, ...], **more: object) -> Path:
    infos = [made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.5)) for model in models]
    path.write_text(json.dumps(made.saved(infos, CLASSES, **more)))  # type: ignore[arg-type]
    return path


def test_the_folder_has_page_charts_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save(tmp_path / "run.json", MODELS)
    assert main(["report", str(run), "-o", str(tmp_path / "out" / "report")]) == 0
    folder = tmp_path / "out" / "report"
    assert capsys.readouterr().out == f"{folder / 'index.html'}: 3 models measured, 0 not\n"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert {"index.html", "leaderboard.md", "leaderboard.csv", "leaderboard.json"} <= names
    assert {name for name in names if name.startswith("charts/")} == {
        f"charts/{name}.svg" for name in ("leaders-acc", "leaders-acc5")
    }
    assert (folder / "charts" / "leaders-acc.svg").read_text(encoding="utf-8").startswith("<svg")


def test_several_runs_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = save(tmp_path / "1.json", MODELS[:1]), save(tmp_path / "2.json", MODELS[1:])
    assert main(["report", str(one), str(other), "-o", str(tmp_path / "report")]) == 0
    rows = json.loads((tmp_path / "report" / "leaderboard.json").read_text())["rows"]
    assert {row["model"] for row in rows} == set(MODELS)


def test_a_run_in_which_nothing_was_measured_is_a_page_too(tmp_path: Path) -> None:
    excluded = [{"model": "x.y", "family": "vit", "status": "no-weights", "reason": "hub unreachable"}]
    run = save(tmp_path / "run.json", (), excluded=excluded)
    assert main(["report", str(run), "-o", str(tmp_path / "report")]) == 0
    assert "1 no-weights: hub unreachable (x.y)" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json", "-o", "report"], "no saved run nowhere.json"),
        (["cut.json", "-o", "report"], "cut.json is not JSON"),
        (["-o", "report"], "report: name one or more RUNs, or --last"),
        (["run.json", "--last"], "report: name one or more RUNs, or --last"),
        (["--last", "--cache=cache"], "no run has been measured with the cache folder cache"),
        (["run.json", "--json", "nowhere/x.json"], "--json: nowhere/x.json cannot be written"),
        (["run.json", "-o", "cut.json"], "report folder cut.json cannot be written"),
        (["run.json", "other.json", "-o", "report"], "other.json does not belong to run.json: another setting"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "run.json", MODELS[:1])
    save(tmp_path / "other.json", MODELS[1:], settings={"protocol": "square224"})
    (tmp_path / "cut.json").write_text("{")
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_it_imports_neither_torch_nor_timm_nor_pytest(tmp_path: Path) -> None:
    run = save(tmp_path / "run.json", MODELS)
    program = f"""
import sys
from embedcore.cli import main
assert main(["report", {str(run)!r}, "-o", {str(tmp_path / "report")!r}]) == 0
print(sorted({{"torch", "timm", "pytest", "pandas"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_interrupted_run_is_shown_and_saved_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    data = made.saved([made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.5)) for model in MODELS], CLASSES)
    header = {"settings": {"seed": 0}, "datasets": [data["embedcore"]["dataset"]]}
    header["machine"] = data["machine_info"]["embedcore"]
    results = [Result.from_json(bench["extra_info"]) for bench in data["benchmarks"]]
    records.journal(tmp_path / "runs", "run", results, (*MODELS, "vgg11.tv_in1k"), **header)
    assert main(["report", "--last", f"--cache={tmp_path}", "--json", str(tmp_path / "run.json")]) == 0
    out, error = capsys.readouterr()
    assert "Overall by acc (3 models)" in out and all(model in out for model in MODELS)
    assert "1 of 4 cases were not reached" in error
    run = read_run(tmp_path / "run.json")
    assert {result.model for result in run.results} == set(MODELS) and run.unreached == {"vgg11.tv_in1k"}
    assert {model_rank.model for model_rank in run.ranking} == set(MODELS)
    journal = next((tmp_path / "runs").glob("*.jsonl"))
    assert main(["report", str(journal), "-o", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "index.html").is_file()
    assert main(["merge", str(journal), "-o", str(tmp_path / "merged.json")]) == 0
