"""``embedcore history`` on folders of saved runs."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main

CLASSES = np.repeat(np.arange(20), 5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Runs of one model as pytest-benchmark saves them; the speed falls in the fourth of six."""
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / ".benchmarks" / "Linux"
    storage.mkdir(parents=True)
    for day in range(1, 7):
        info = made.result("vit_tiny.in1k", CLASSES, made.hits_of("vit", CLASSES, 0.6), processes=[])
        info["images_per_s"] = {"forward": 100.0 if day < 4 else 80.0}
        data = made.saved([info], CLASSES) | {"datetime": f"2026-11-0{day}T12:00:00+00:00"}
        (storage / f"000{day}_nightly.json").write_text(json.dumps(data))
    return tmp_path / ".benchmarks"


def test_steps_and_requested_series(folder, capsys):
    assert main(["history", str(folder), "-k", "vit_tiny*"]) == 0
    out = capsys.readouterr().out
    assert "6 runs, 2026-11-01 to 2026-11-06, 1 model: 2 steps in 1 run" in out
    assert "███▁▁▁" in out
    assert main(["history", str(folder), "--format", "json", "-k", "tiny"]) == 0
    assert {series["model"] for series in json.loads(capsys.readouterr().out)["series"]} == {"vit_tiny.in1k"}
    assert (
        main(["history", "0001", "0006_nightly", str(folder / "Linux" / "0005_nightly.json"), "--format", "csv"]) == 0
    )
    assert capsys.readouterr().out.count("2026-11-0") == 3 * 6 + 4  # drift begins with the second run


def test_other_files_are_ignored_and_damaged_runs_reported(folder, capsys):
    (folder / "Linux" / "leaderboard.json").write_text("{}")
    (folder / "Linux" / "0007_cut.json").write_text("{")
    assert main(["history", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("6 runs, ")
    assert captured.err.startswith("embedcore: skipped: ") and captured.err.count("\n") == 1
    assert "0007_cut.json is not JSON" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".benchmarks", "-k", "nothing*"], "-k nothing*: no model or family of these runs matches"),
        (["empty"], "no saved run in empty"),
        (["nowhere"], "no saved run nowhere"),
        ([".benchmarks/Linux/0001_nightly.json", "cut.json"], "cut.json is not JSON"),
    ],
)
def test_errors_have_exit_code_2_and_one_line(folder, capsys, arguments, message):
    (folder.parent / "empty").mkdir()
    (folder.parent / "cut.json").write_text("{")
    assert main(["history", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_page_is_also_written(folder, capsys):
    page = folder.parent / "history.html"
    assert main(["history", str(folder), "-k", "tiny", "--html", str(page)]) == 0
    assert capsys.readouterr().out.startswith("6 runs, ")
    text = page.read_text(encoding="utf-8")
    assert "vit_tiny.in1k" in text and "2 steps in 1 run" in text
    assert main(["history", str(folder), "--html", str(folder / "nowhere" / "history.html")]) == 2
    assert "--html: " in capsys.readouterr().err


def test_the_commands_of_saved_runs_import_neither_torch_nor_timm(folder):
    run = folder / "Linux" / "0001_nightly.json"
    program = f"""
import sys
from embedcore.cli import main
codes = [main(["history", {str(folder)!r}]), main(["merge", {str(run)!r}, "-o", "all.json"])]
codes.append(main(["compare", {str(run)!r}, "all.json"]))
assert codes == [0, 0, 0], codes
print(sorted({{"torch", "timm", "pytest", "altair"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
