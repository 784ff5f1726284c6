"""Several workers of pytest-xdist: one run, a journal and a card each."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import mini_models
import pytest
import records
from forked import ended
from galleries import retrieved

from embedcore.plugin import machine
from embedcore.plugin.budget import Budget
from embedcore.plugin.workers import Workers, worker_of
from embedcore.results.reading import read_run
from embedcore.results.runs import journals_of, runs_in_use

IN_PROCESS = "--embed-isolation=none"
MINI = mini_models.MINI[:8]


def test_a_killed_run_of_two_workers_is_resumed_in_one_process(run, project, saved, workers):
    (project.path / "roster.txt").write_text("\n".join(MINI))
    folder = project.path / "cache" / "runs"
    process = workers(2, IN_PROCESS)

    def results():
        return records.models(records.read(*records.begun_in(folder)))

    deadline = time.monotonic() + 240
    while process.is_alive() and time.monotonic() < deadline:
        if len(results()) >= 3 and len(records.begun_in(folder)) == 2:
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL, (project.path / "output").read_text()
    while runs_in_use(folder) and time.monotonic() < deadline:  # the workers end some time later
        time.sleep(0.01)
    before = results()
    assert 3 <= len(before) < len(MINI)
    assert len(list(folder.glob("*.gw0.jsonl"))) == len(list(folder.glob("*.gw1.jsonl"))) == 1

    outcome = run(IN_PROCESS, "--embed-resume", "--benchmark-json=run.json")
    outcome.assert_outcomes(passed=len(MINI))
    outcome.stdout.fnmatch_lines([f"resumed: {len(before)} of {len(MINI)} results are from the earlier session"])
    assert len(saved()["benchmarks"]) == len(MINI)
    (paths,) = journals_of(folder).values()
    contents = records.read(*paths)
    assert records.finished(contents)
    assert sorted(records.models(contents)) == sorted(MINI)  # none twice
    assert records.models(contents)[: len(before)] == before


def test_workers_report_together_and_a_mistake_is_one_line(project, workers):
    mistaken = workers(1, IN_PROCESS, dataset="nowhere", output="mistaken")
    process = workers(2, "--embed-report=report", "--benchmark-json=run.json", "--benchmark-save=two")
    assert ended(process) == 0, (project.path / "output").read_text()
    text = (project.path / "output").read_text()
    assert text.count("embedcore: leaderboards") == 1
    assert "Overall by acc (3 models)" in text
    (paths,) = journals_of(project.path / "cache" / "runs").values()
    contents = records.read(*paths)
    assert records.finished(contents)
    stored = read_run("two", storage=project.path / ".benchmarks")
    assert stored.results == read_run(project.path / "run.json").results
    assert len(stored.results) == 3 and stored.timm is not None
    # The controller, which has neither dataset nor results of its own, shows what they retrieve.
    gallery = retrieved(project.path / "report" / "index.html")
    assert gallery["answers"].keys() == {result.model for result in stored.results}
    assert gallery["missing"] == 0
    assert ended(mistaken) == pytest.ExitCode.USAGE_ERROR
    text = (project.path / "mistaken").read_text()
    assert text.count("no such folder of images") == 1
    assert "INTERNALERROR" not in text


EAGER = """
from embedcore.plugin import pages
from embedcore.report import report_folder as files

pages.EVERY_S = 1e-9
put = files.put

def kept(directory, contents):
    put(directory, contents)
    if "index.html" in contents:
        number = len(list(directory.glob("version-*")))
        (directory / f"version-{number:03}").write_bytes(contents["index.html"])

files.put = kept
"""


def test_the_controller_writes_the_page_while_workers_measure(project, workers):
    (project.path / "conftest.py").write_text(EAGER)
    assert ended(workers(2, IN_PROCESS, "--embed-report=report")) == 0, (project.path / "output").read_text()
    first, *_, last = (p.read_text(encoding="utf-8") for p in sorted((project.path / "report").glob("version-*")))
    assert "This run is in progress: 1 of 3 cases are done; 2 cases left, " in first and "data-reload" in first
    assert "This run goes on" not in last and "data-reload" not in last


AT_FIRST_SETUP = """
import os
import pytest

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        raise KeyboardInterrupt
"""


def test_ctrl_c_before_the_first_result_names_the_unreached_cases(project, workers):
    (project.path / "conftest.py").write_text(AT_FIRST_SETUP)
    assert ended(workers(2, IN_PROCESS)) == pytest.ExitCode.INTERRUPTED
    text = " ".join((project.path / "output").read_text().split())
    line = text.partition("embedcore: 3 of 3 cases not reached (")[2].partition("); continue with --embed-resume")[0]
    assert sorted(line.split(", ")) == sorted((project.path / "roster.txt").read_text().split())


def test_each_worker_has_a_card_of_its_own(monkeypatch):
    monkeypatch.setattr(machine, "card_names", lambda: ("H100", "H100", "A100"))
    assert [machine.device_of_worker("auto", slot) for slot in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert machine.device_of_worker("cuda", 1) == "cuda:1"
    assert machine.device_of_worker("cuda:2", 1) == "cuda:2"
    assert machine.device_of_worker("cpu", 1) == "cpu"
    monkeypatch.setattr(machine, "card_names", lambda: ())
    assert machine.device_of_worker("auto", 1) == "auto"


@pytest.mark.parametrize(
    ("device", "workers", "message"),
    [
        ("auto", 4, ["4 workers share 3 cards", "use -n 3"]),
        ("auto", 3, []),
        ("cuda", 5, ["5 workers share 3 cards", "use -n 3"]),
        ("cuda:1", 2, ["2 workers share one card", "use -n 1"]),
        ("cuda:1", 1, []),
        ("cpu", 9, []),
    ],
)
def test_workers_that_share_a_card_give_a_warning(monkeypatch, device, workers, message):
    monkeypatch.setattr(machine, "card_names", lambda: ("H100", "H100", "A100"))
    lines = machine.shared_cards(device, workers)
    assert len(lines) == bool(message) and all(part in lines[0] for part in message)


def test_a_worker_that_replaces_another_takes_its_card_and_the_rest_of_its_budget():
    workers = Workers()
    first, second, third = (workers.begin(name, 1.7e9) for name in ("gw0", "gw1", "alpha"))
    assert [first["slot"], second["slot"], third["slot"]] == [0, 1, 2]
    assert [first["reports_notes"], second["reports_notes"], third["reports_notes"]] == [True, False, False]
    workers.end("gw0")
    replacing = workers.begin("gw3", 1.7e9)
    assert replacing["slot"] == 0 and not replacing["reports_notes"]
    assert replacing["began"] == first["began"] == 1.7e9
    budget = Budget.of_session(60.0, SimpleNamespace(workerinput={"embedcore": {**first, "began": time.time() - 45}}))
    assert 14 < budget.left() < 16


def test_a_worker_with_a_custom_name_has_a_journal():
    given = {"pid": 7, "began": 0.25, "slot": 4, "reports_notes": False, "in_use": ["old"]}
    worker = worker_of(SimpleNamespace(workerinput={"workerid": "../alpha.1", "embedcore": given}))
    assert (worker.new_run, worker.name, worker.slot) == ("19700101T000000250000-7", "___alpha_1", 4)
    assert worker.in_use == {"old"}


@pytest.mark.parametrize(
    ("device", "several", "gpu"),
    [
        ("auto", False, "H100"),
        ("cuda", False, "H100"),
        ("cuda:2", False, "A100"),
        ("auto", True, "H100 + A100"),
        ("cpu", False, None),
    ],
)
def test_a_run_names_the_card_in_use(monkeypatch, device, several, gpu):
    monkeypatch.setattr(machine, "card_names", lambda: ("H100", "H100", "A100"))
    facts = machine.machine(device, several=several)
    assert facts["gpu"] == gpu
    assert machine.machine_in_use(facts) == (gpu or facts["processor"])


def test_cards_are_asked_for_in_a_child_process(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    machine.card_names.cache_clear()
    try:
        assert machine.card_names() == ()  # the child has no card, and this process was not asked
    finally:
        machine.card_names.cache_clear()
    assert not torch.cuda.is_initialized()


EDITED = """
import pytest
from PIL import Image

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    if hasattr(item.config, "workerinput"):
        Image.new("RGB", (9, 9)).save("images/class0/0.png")
"""


def test_an_image_edited_before_it_is_decoded_ends_the_run_with_a_line(project, workers):
    (project.path / "conftest.py").write_text(EDITED)
    assert ended(workers(2, IN_PROCESS)) == pytest.ExitCode.USAGE_ERROR
    text = (project.path / "output").read_text()
    assert "INTERNALERROR" not in text and "crashed" not in text
    assert "'class0/0.png': its content has changed since the dataset was loaded" in text


SPENT = """
import sys
import embedcore.plugin.budget as budget
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    if item.config.workerinput["workerid"] == "gw0":
        budget.Budget.left = lambda self: -1.0
"""


def test_a_budget_spent_in_a_case_of_a_worker_ends_the_run_with_a_line(project, workers):
    (project.path / "conftest.py").write_text(SPENT)
    assert ended(workers(1, "--embed-budget=1h")) == pytest.ExitCode.INTERRUPTED
    text = (project.path / "output").read_text()
    assert "INTERNALERROR" not in text and "crashed" not in text
    assert "--embed-budget of 1 h is used up: 3 cases left; continue with --embed-resume" in text
