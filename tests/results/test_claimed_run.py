"""A claim folder read as one run, and the commands that read it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import records
import synthetic_runs as made

from embedcore.cli import main
from embedcore.commands import report as command
from embedcore.errors import UsageError
from embedcore.results.claimed_run import read_claimed
from embedcore.results.claims import Claims, agree
from embedcore.results.reading import read_run
from embedcore.results.result import Result
from embedcore.results.runs import Worker

CLASSES = np.repeat(np.arange(20), 5)
MODELS = ("vit_tiny.in1k", "vit_small.in1k", "resnet18.a1_in1k")
GPU = {**made.MACHINE, "gpu": "H100", "driver": "570"}


def measured(model: str, **changes: object) -> Result:
    return Result.from_json(made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.5), dataset="f00d", **changes))


def failed(model: str, status: str = "oom") -> Result:
    return Result.make(model, family="vit", status=status, reason="why", dataset="f00d")


@pytest.fixture
def folder(tmp_path):
    """A claim folder in which no worker has begun a journal."""
    agree(tmp_path / "shared", "run", {})
    Claims(tmp_path / "shared", "run", "none")
    return tmp_path / "shared"


@pytest.fixture
def journal(folder):
    """Write the journal of a worker: `journal(worker, results, machine)`."""
    block = made.saved([], CLASSES)["embedcore"]["dataset"] | {"fingerprint": "f00d"}

    def journal(worker, *results, machine=made.MACHINE):
        header = {"settings": {"seed": 0, "roster": worker}, "datasets": [block], "machine": machine}
        record = records.begun(folder, MODELS, Worker("run", worker), **header)
        records.keep(record, *results)
        record.close()
        return folder / f"run.{worker}.jsonl"

    return journal


def test_the_results_of_all_workers_are_one_run(folder, journal):
    journal("one", measured(MODELS[0]))
    journal("two", measured(MODELS[1]), failed(MODELS[2], "too-large"))
    journal("idle")
    (folder / "run.killed.jsonl").write_text('{"journal": 3, "iden')
    run = read_run(folder)
    assert [result.model for result in run.results] == list(MODELS[:2])
    assert [(result.model, result.status) for result in run.excluded] == [(MODELS[2], "too-large")]
    assert (run.unreached, run.settings["roster"], run.unlike) == (frozenset(), "idle, one, two", False)
    assert run.processor == made.MACHINE["processor"]


def test_cases_without_a_result_are_unreached(folder, journal):
    journal("one", measured(MODELS[0]))
    assert read_run(folder).unreached == set(MODELS[1:])


def test_of_two_measurements_the_first_is_kept_and_noted(folder, journal):
    first, second = (measured(MODELS[0], images_per_s={"forward": speed}) for speed in (10.0, 20.0))
    journal("z", first)
    journal("a", second)
    record = read_claimed(folder)
    assert [result.images_per_s["forward"] for result in record.results.values()] == [10.0]
    assert record.warnings == [f"{MODELS[0]}: measured by z and a; kept the first result"]
    assert record.unreached == list(MODELS[1:])


def test_a_temporary_failure_gives_way_to_a_later_result_without_a_note(folder, journal):
    journal("one", failed(MODELS[0]), failed(MODELS[1]))
    journal("two", measured(MODELS[0]), failed(MODELS[1], "timeout"))
    record = read_claimed(folder)
    assert [result.status for result in record.results.values()] == ["ok", "timeout"] and record.warnings == []


def test_each_result_of_unlike_machines_names_its_own(folder, journal, tmp_path, capsys):
    journal("one", measured(MODELS[0]))
    journal("two", measured(MODELS[1]), machine=GPU)
    run = read_run(folder)
    assert {result.model: result.processor for result in run.results} == {
        MODELS[0]: made.MACHINE["processor"],
        MODELS[1]: "H100, driver 570",
    }
    assert run.versions["processor"] == f"H100, driver 570; {made.MACHINE['processor']}" and run.versions["gpu"] is None
    assert main(["merge", str(folder), "-o", str(tmp_path / "run.json")]) == 0
    shown = capsys.readouterr()
    assert "whose speeds do not compare" in shown.err and "1 model not reached" in shown.err
    merged = read_run(tmp_path / "run.json")
    assert (merged.results, merged.versions, merged.machines) == (run.results, run.versions, run.machines)
    assert len(merged.ranking) == 2


def test_damaged_lines_are_left_out_and_noted(folder, journal):
    path = journal("one", measured(MODELS[0]), measured(MODELS[1]))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"ok"', b'"OK"')]))
    record = read_claimed(folder)
    assert len(record.results) == 1
    assert record.warnings == ["1 damaged line of journals: one: line 3 does not match its checksum"]


def test_the_merged_run_cannot_replace_the_run_of_the_workers(folder, journal, capsys):
    journal("one", measured(MODELS[0]))
    before = (folder / "identity.json").read_bytes()
    assert main(["merge", str(folder), "-o", str(folder / "identity.json")]) == 2
    assert "is one of the runs to merge" in capsys.readouterr().err
    assert (folder / "identity.json").read_bytes() == before


def test_a_folder_without_a_journal_is_reported(folder):
    with pytest.raises(UsageError, match="no worker has begun the run yet"):
        read_run(folder)
    assert read_claimed(folder).planned == {}


def test_the_live_page_is_rewritten_until_all_cases_are_done(folder, journal, tmp_path, monkeypatch, capsys):
    pages, report = [], tmp_path / "report"

    def sleep(seconds):
        """Another worker ends its case in each pause."""
        assert seconds == 60
        page = report / "index.html"
        pages.append(page.read_text(encoding="utf-8") if page.exists() else "")
        journal(f"w{len(pages)}", measured(MODELS[len(pages) - 1]))

    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=sleep))
    assert main(["report", "--live", str(folder), "-o", str(report)]) == 0
    first, *others = pages
    assert first == "" and len(others) == 2
    for number, page in enumerate(others, start=1):
        assert f"This run is in progress: {number} of 3 cases are done" in page and 'data-reload="60"' in page
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "data-reload" not in page and "Not finished" not in page
    assert len(json.loads((report / "leaderboard.json").read_text())["rows"]) == 3
    assert "3 models measured, 0 not" in capsys.readouterr().out


def test_ctrl_c_ends_the_live_page(folder, journal, tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    journal("one", measured(MODELS[0]))
    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=interrupt))
    assert main(["report", "--live", str(folder), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Not finished: 1 of 3 cases are done." in page and "data-reload" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shared"], "report --live: name one folder of --embed-claim, and -o DIR"),
        (["shared", "shared", "-o", "report"], "report --live: name one folder of --embed-claim, and -o DIR"),
        (["other", "-o", "report"], "report --live: no worker has joined other with --embed-claim yet"),
        (["none", "-o", "report"], "no saved run none"),
    ],
)
def test_the_live_page_needs_a_claim_folder(folder, tmp_path: Path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    assert main(["report", "--live", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
