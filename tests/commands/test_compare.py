"""`embedcore compare` and `accept` as commands: formats, exit codes, and every unusable input."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic_runs as made

import embedcore.ab.confirm
from embedcore.cli import main
from embedcore.compare.interleaved import ratio_of

CLASSES = np.repeat(np.arange(100), 10)
MODELS = (
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "resnet18.a1_in1k",
    "a_very_long_name_of_an_architecture_384.with_a_long_tag",
)


def save(path, *, worse=(), **block):
    results = []
    for model in MODELS:
        hits = made.hits_of(model, CLASSES, 0.6)
        if model in worse:
            hits = np.where(np.arange(len(hits)) % 10 == 0, 0, hits).astype(np.uint8)
        results.append(made.result(model, CLASSES, hits))
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(made.saved(results, CLASSES, **block)))
    return str(path)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return save(tmp_path / "base.json"), save(tmp_path / "new.json", worse=MODELS[::2])


def test_equal_runs_pass(runs, capsys):
    assert main(["compare", runs[0], runs[0]]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "PASSED: 3 models compared"


def test_regressions_are_listed_worst_first_in_80_columns(runs, capsys):
    assert main(["compare", *runs]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "FAILED: 3 models compared: 2 worse than the limits allow"
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    rows = [line for line in lines if " acc " in line and line.endswith("pt")]
    falls = [float(row.split()[-4]) for row in rows]
    assert len(rows) == 2 and falls == sorted(falls) and falls[0] < -5
    assert MODELS[2] in lines, "a name that is too long for its column has a line of its own"


def test_names_in_the_storage_are_found_across_python_versions(runs, tmp_path):
    save(tmp_path / ".benchmarks" / "Linux-CPython-3.10-64bit" / "0001_before.json")
    save(tmp_path / ".benchmarks" / "Linux-CPython-3.11-64bit" / "0001_after.json", worse=MODELS[:1])
    assert main(["compare", "before", "after"]) == 1
    assert main(["compare", "before", "before"]) == 0


def test_limits_of_the_command_line_and_of_the_file(runs, tmp_path, capsys):
    assert main(["compare", *runs, "--fail-on", "images_per_s:5%"]) == 0
    assert "limits: images_per_s 5 %; nothing else is gated" in capsys.readouterr().out.splitlines()
    (tmp_path / "embedcore-gate.toml").write_text('[[limit]]\nmodels = ["*"]\nfail_on = "acc:50pt,acc5:50pt"\n')
    assert main(["compare", *runs]) == 0


def test_accepted_changes_pass_and_are_reported(runs, capsys):
    assert main(["accept", runs[1], "vit*", MODELS[2], "--because", "new crop"]) == 0
    assert "embedcore-gate.toml: vit_tiny" in capsys.readouterr().out
    assert main(["compare", *runs]) == 0
    out = capsys.readouterr().out
    assert "accepted: new crop" in out and out.endswith("PASSED: 3 models compared: 2 changed as accepted\n")
    assert main(["accept", runs[1], "nothing*", "--because", "x"]) == 2
    assert "nothing* matches no model of" in capsys.readouterr().err


def test_formats(runs, tmp_path, capsys):
    assert main(["compare", *runs, "--format", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["passed"] is False and data["compared"] == 3
    assert {f["model"] for f in data["findings"] if f["level"] == "regression"} == {*MODELS[::2]}
    assert main(["compare", *runs, "--format", "junit", "-o", "gate.xml"]) == 1
    assert capsys.readouterr().out.endswith("worse than the limits allow\n"), "the text still goes to the terminal"
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert suite.get("tests") == "3" and suite.get("failures") == "2" and len(suite.findall("testcase/failure")) == 2
    assert main(["compare", *runs, "--format", "markdown"]) == 1
    text = capsys.readouterr().out
    assert re.match(r"## .*: \d+ of 3 models worse\n\n\*\*FAILED: 3 models", text)
    assert ["|", f"`{MODELS[0]}`", "|", "acc", "|"] in [line.split()[:5] for line in text.splitlines()]


def test_on_github_there_are_annotations_and_a_summary(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert main(["compare", *runs]) == 1
    commands = [line for line in capsys.readouterr().err.splitlines() if line]
    assert commands and all(line.startswith("::error title=embedcore") for line in commands)
    assert "FAILED" in (tmp_path / "summary.md").read_text()
    assert main(["compare", runs[0], runs[0]]) == 0
    assert "::error" not in capsys.readouterr().err


def test_a_first_run_must_be_asked_for(runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for base in ("empty", "main", str(tmp_path / "empty" / "base.json")):
        assert main(["compare", base, runs[1], "--allow-no-baseline"]) == 0
        assert "no baseline" in capsys.readouterr().out
        assert main(["compare", base, runs[1]]) == 2
        error = capsys.readouterr().err
        assert "nothing is saved at" in error and "--allow-no-baseline accepts a first run" in error
    save(tmp_path / ".benchmarks" / "machine" / "0001_main.json")
    for more in ([], ["--allow-no-baseline"]):
        assert main(["compare", "mian", runs[1], *more]) == 2
        assert "did you mean main?" in capsys.readouterr().err


def broken(tmp_path):
    good = made.saved([], CLASSES)
    yield "cut short", json.dumps(good)[:-20], "is not JSON"
    yield "foreign", "[1, 2]", "is not a run saved by pytest-benchmark"
    yield "of pytest-benchmark alone", json.dumps({"benchmarks": [], "machine_info": {}}), "without embedcore"
    yield "of a later schema", json.dumps(good | {"embedcore": {"schema": 9}}), "has embedcore schema 9"
    yield "deep", "[" * 100_000, "is not JSON"
    yield "empty", "", "is not JSON"
    yield "of numbers that are none", json.dumps(good).replace('"schema": 1', '"schema": NaN'), "schema"
    for key, value in (("excluded", 3), ("settings", []), ("dataset", "x"), ("selection", 1), ("renamed", [])):
        yield f"with {key} of another type", json.dumps(good | {"embedcore": good["embedcore"] | {key: value}}), key
    zeros = {"model": "a.b", "status": "ok", "family": "x", "scores": {}}
    yield "of a result without scores", json.dumps(good | {"benchmarks": [{"extra_info": zeros}]}), "lacks acc"
    yield "with nothing measured", json.dumps(good), "no model was measured"


def test_every_broken_input_is_one_line_and_exit_code_2(runs, tmp_path, capsys):
    for what, text, output in broken(tmp_path):
        path = tmp_path / "broken.json"
        path.write_text(text)
        assert main(["compare", runs[0], str(path)]) == 2, what
        error = capsys.readouterr().err
        assert output in error and "broken.json" in error and error.count("\n") == 1, (what, error)


def test_verdicts_that_unpack_to_gigabytes_are_refused(runs, tmp_path, capsys):
    import base64
    import zlib

    data = json.loads((tmp_path / "base.json").read_text())
    bomb = base64.b64encode(zlib.compress(bytes(60_000_000), 9)).decode()
    data["benchmarks"][0]["extra_info"]["verdicts"] = bomb
    (tmp_path / "bomb.json").write_text(json.dumps(data))
    assert main(["compare", runs[0], str(tmp_path / "bomb.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_unusable_input(runs, tmp_path, capsys):
    other = save(tmp_path / "other.json", dataset={"fingerprint": "beef"}, machine=made.MACHINE | {"processor": "B"})
    for arguments, output in (
        (["compare", runs[0], other], ": another dataset"),
        (["compare", runs[0], str(tmp_path / "none.json")], "no saved run"),
        (["compare", *runs, "--fail-on", "speed:5%"], "'speed' is not one of"),
        (["compare", *runs, "--fail-on", "gone.toml"], "gate file gone.toml cannot be read"),
        (["compare", *runs, "-o", str(tmp_path / "no" / "file")], "cannot be written"),
        (["compare", runs[0]], "required"),
    ):
        assert main(arguments) == 2, arguments
        assert output in capsys.readouterr().err


def test_compare_imports_neither_torch_nor_timm(runs):
    code = (
        f"import sys; from embedcore.cli import main; code = main(['compare', {runs[0]!r}, {runs[1]!r}]); "
        "sys.exit(9 if {'torch', 'timm', 'pytest'} & set(sys.modules) else code)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 1


def test_two_releases_of_timm_are_compared_by_their_configurations(runs, tmp_path, capsys, monkeypatch):
    from embedcore.compare import configurations

    asked = []

    def compare_timm(base, new, cache):
        asked.append((base, new, cache))
        return configurations.ConfigurationChanges("1.0.3", "1.0.9", 10, 11, ())

    monkeypatch.setattr(configurations, "compare_timm", compare_timm)
    assert main(["compare", "--timm", "1.0.3", "1.0.9", "--cache", str(tmp_path)]) == 0
    assert asked == [("1.0.3", "1.0.9", tmp_path)]
    assert capsys.readouterr().out.startswith("timm 1.0.3 → 1.0.9: 10 pretrained tags, now 11\n")
    assert main(["compare", "--timm", "1.0.3", "1.0.9", "--format", "junit"]) == 2
    assert "format junit is not supported; use text or json" in capsys.readouterr().err


def test_the_page_is_written_atomically(runs, tmp_path, capsys):
    assert main(["compare", *runs, "--html", "page.html"]) == 1
    assert capsys.readouterr().out.endswith("2 worse than the limits allow\n"), "the text still goes to the terminal"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and MODELS[2] in page
    assert main(["compare", *runs, "--html", "nowhere/page.html"]) == 2
    assert "--html: nowhere/page.html cannot be written" in capsys.readouterr().err
    assert main(["compare", "--timm", "1.0.3", "1.0.9", "--html", "timm.html"]) == 2
    assert "--timm cannot be combined with --html" in capsys.readouterr().err


def test_confirm_settles_suspect_speeds(runs, monkeypatch, capsys, tmp_path):
    asked = []

    def confirm(comparison, names, limits, *, cache, seconds, **_):
        asked.append((set(names), seconds, cache))
        return dict.fromkeys(names, answers.pop())

    monkeypatch.setattr(embedcore.ab.confirm, "confirm", confirm)
    for name in ("one", "two"):
        path = tmp_path / f"{name}.json"
        save(path)
        data = json.loads(path.read_text())
        for bench in data["benchmarks"]:
            bench["extra_info"]["processes"] = []  # of an older embedcore: two sessions cannot decide
        path.write_text(json.dumps(data))
    slower, equal = (ratio_of([math.log(speed)] * 4, models=1) for speed in (0.8, 1.0))
    answers = [slower, equal]
    command = ["compare", "one.json", "two.json", "--undecided", "fail"]
    assert main(command) == 3 and not asked
    confirming = [*command, "--confirm", "--budget", "30m", "--cache", str(tmp_path)]
    assert [main(confirming), main(confirming)] == [0, 1]
    assert asked == [(set(MODELS), 1800.0, tmp_path)] * 2
    capsys.readouterr()
    assert main([*command, "--budget", "30m"]) in (2, 4)
    assert "--budget needs --confirm" in capsys.readouterr().err
