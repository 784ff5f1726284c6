"""--embed-processes: a session times its cases again in further fresh processes, after the last test."""

from __future__ import annotations

import json

import msgspec
import pytest

from embedcore.measure.bench import Bench
from embedcore.plugin.budget import BudgetSpent
from embedcore.results.process import TimingProcess
from embedcore.results.record import read_record
from embedcore.results.result import Result

JSON = "--benchmark-json=run.json"
ISOLATED = "--embed-isolation=process"


@pytest.fixture
def timed(monkeypatch):
    """The models in the order in which they are timed again; nothing is computed."""
    models = []

    def time(self, result, dataset, stages, *, limit_s):
        models.append(result.model)
        return TimingProcess(started=result.processes[-1].started + 60, durations=(0.5,))

    monkeypatch.setattr(Bench, "time", time)
    return models


def processes(saved):
    return {bench["extra_info"]["model"]: len(bench["extra_info"]["processes"]) for bench in saved()["benchmarks"]}


def test_each_pass_covers_all_cases_before_the_next(run, saved, timed):
    assert run(ISOLATED, JSON, "--embed-processes=3").ret == 0
    models = list(processes(saved))
    assert len(models) == 3 and timed == models * 2
    assert set(processes(saved).values()) == {3}
    data = saved()
    assert data["embedcore"]["settings"]["processes"] == 3
    assert all(bench["stats"]["rounds"] == 2 for bench in data["benchmarks"])  # the speed is that of the first process


def test_the_second_process_is_real_also_in_workers(run, project, saved):
    assert run("-k", "vit", "-n1", JSON, "--embed-processes=2").ret == 0
    ((first, second),) = [bench["extra_info"]["processes"] for bench in saved()["benchmarks"]]
    assert second["started"] > first["started"] and len(second["durations"]) == 2
    journals = list((project.path / "cache" / "runs").glob("*.jsonl"))
    (result,) = read_record(journals).results.values()
    assert [process.started for process in result.processes] == [first["started"], second["started"]]


def test_a_resumed_run_times_only_what_is_missing(run, saved, timed):
    assert run(ISOLATED, "-k", "vit").ret == 0
    assert run(ISOLATED, "--embed-resume", JSON, "--embed-processes=2").ret == 0
    assert len(timed) == 3 and set(processes(saved).values()) == {2}


def test_when_the_budget_ends_the_results_stay(run, saved, monkeypatch):
    def spent(self, result, dataset, stages, *, limit_s):
        raise BudgetSpent

    monkeypatch.setattr(Bench, "time", spent)
    result = run(ISOLATED, JSON, "--embed-processes=2", "--embed-budget=1h")
    assert result.ret == 0 and set(processes(saved).values()) == {1}
    result.stdout.fnmatch_lines(["*the budget was used up before 3 cases could be timed in 2 processes*"])


def test_a_case_that_fails_the_second_time_keeps_its_first(run, saved, monkeypatch):
    def fail(self, result, dataset, stages, *, limit_s):
        return Result.make(result.model, family=result.family, status="crashed", reason="killed by SIGSEGV")

    monkeypatch.setattr(Bench, "time", fail)
    result = run(ISOLATED, "-k", "vit", JSON, "--embed-processes=2")
    assert result.ret == 0 and set(processes(saved).values()) == {1}
    result.stdout.fnmatch_lines(["*test_vit.r160_in1k: not timed in process 2: crashed: killed by SIGSEGV*"])


def test_nothing_is_timed_again_after_a_stop_or_for_what_has_no_time(run, timed, monkeypatch):
    original = Bench.run

    def untimed(self, *arguments, **options):
        measured = original(self, *arguments, **options)
        return measured._replace(result=msgspec.structs.replace(measured.result, durations=(), processes=()))

    monkeypatch.setattr(Bench, "run", untimed)
    assert run(ISOLATED, "-k", "vit", "--embed-processes=2").ret == 0
    assert run("-x", weights="auto").ret == 1
    assert run("--collect-only", "--embed-processes=2").ret == 0
    assert not timed


def test_the_line_of_a_second_process_survives_the_journal(run, project, timed):
    run(ISOLATED, "-k", "vit", "--embed-processes=2")
    (journal,) = (project.path / "cache" / "runs").glob("*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines() if '"timed"' in line]
    assert [line["timed"][0] for line in lines] == ["test_vit.r160_in1k"]


def test_without_isolation_no_process_is_a_fresh_one(run, saved, timed):
    assert run("--embed-isolation=none", "-k", "vit", JSON, "--embed-processes=2").ret == 0
    assert not timed and set(processes(saved).values()) == {1}
