"""A sweep that cannot be lost: interrupted, killed, resumed, out of time."""

from __future__ import annotations

import functools
import json
import os
import signal
import time

import pytest
import records
from forked import ended
from mini_models import MINI


@pytest.fixture
def start(start_sweep):
    """Start a sweep in a process of its own, with further arguments."""
    return functools.partial(start_sweep, roster=MINI)


def scores_of(path):
    """The fields that must be equal in an interrupted and an uninterrupted run, by model, and the models in order."""
    data = json.loads(path.read_text())
    cases = [bench["extra_info"] for bench in data["benchmarks"]]
    keys = ("scores", "ci95", "verdicts", "sketch", "weights", "dim", "params_m", "gmacs")
    return [case["model"] for case in cases], {case["model"]: {key: case[key] for key in keys} for case in cases}


def journal_of(cache):
    """The contents of the only journal of a cache folder, None before it exists."""
    found = records.begun_in(cache / "runs")
    assert len(found) <= 1, "a resumed run must go on in its journal"
    return records.read(found[0]) if found else None


def measured_in(cache):
    """The models that a journal has results of, in order."""
    contents = journal_of(cache)
    return [] if contents is None else records.models(contents)


def kill_in_case(process, cache, number, delay):
    """Send SIGKILL to the session some seconds after ``number`` cases have been measured."""
    deadline = time.monotonic() + 120
    while process.is_alive() and len(measured_in(cache)) < number and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay)
    process.kill()
    process.join()


KILLED = """
import os, signal
from pathlib import Path

from embedcore.files import sealed
from embedcore.measure.bench import Bench
from embedcore.plugin.replay import clock
from embedcore.results.journal import Journal

MOMENT = Path("moment").read_text()

def reached(moment):
    if moment == MOMENT:
        os.kill(os.getpid(), signal.SIGKILL)

def killed_append(self, line, append=Journal.append):
    kind = "header" if "journal" in line else "result" if "model" in line else "timing" if "timed" in line else "other"
    if MOMENT == f"within the {kind}":
        whole = sealed(line)
        os.write(self._descriptor, whole[: len(whole) // 2])
        reached(MOMENT)
    append(self, line)
    reached(f"after the {kind}")

def logged_run(self, case, *arguments, run=Bench.run, **options):
    with open("runs", "a") as file:
        file.write(f"{case.model}\\n")
    return run(self, case, *arguments, **options)

def killed_time(self, *arguments, time=Bench.time, **options):
    reached("before a timing")
    return time(self, *arguments, **options)

def killed_replay(*arguments, replay=clock.replay):
    reached("before the replay")
    replay(*arguments)

Journal.append, Bench.run, Bench.time, clock.replay = killed_append, logged_run, killed_time, killed_replay

def pytest_runtest_logfinish():
    reached("between cases")
"""

# Numbers: seconds after a result, so in the following case.
MOMENTS = (
    *(
        "within the header",
        "after the header",
        "within the result",
        0.02,
        "after the result",
        0.15,
        "before the replay",
    ),
    *(0.3, "between cases", "before a timing", "within the timing", "after the timing"),
)


def test_killed_at_each_kind_of_moment_and_resumed(start, project):
    """A sweep that is killed again and again loses nothing but the case or timing in progress."""
    (project.path / "conftest.py").write_text(KILLED)
    (project.path / "moment").touch()
    passes = "--embed-processes=2"
    assert ended(start("--benchmark-json=whole.json", cache="whole")) == 0
    whole = scores_of(project.path / "whole.json")
    assert len(whole[0]) == len(MINI)
    cache = project.path / "cache"
    cache.mkdir()
    (cache / "pixels").symlink_to(project.path / "whole" / "pixels")  # decoded once: this is about the sweep
    for moment in MOMENTS:
        before = measured_in(cache)
        (project.path / "moment").write_text(str(moment))
        (project.path / "runs").write_text("")
        victim = start("--embed-resume", passes)
        if isinstance(moment, float):
            kill_in_case(victim, cache, len(before) + 1, moment)
        # 255: it was killed while it requested a child, and the forkserver, which knows the exit code, has died.
        assert ended(victim) in (-signal.SIGKILL, 255), moment
        after = measured_in(cache)
        assert after[: len(before)] == before
        begun = (project.path / "runs").read_text().split()
        assert begun in (whole[0][len(before) : len(after) + lost] for lost in (0, 1)), moment
    (project.path / "moment").write_text("never")
    assert ended(start("--embed-resume", passes, "--benchmark-json=resumed.json")) == 0
    assert scores_of(project.path / "resumed.json") == whole
    contents = journal_of(cache)
    assert records.models(contents) == whole[0]
    assert records.finished(contents)
    assert {len(result.processes) for result in contents.results.values()} == {2}


def test_ctrl_c_still_writes_report_and_json_and_can_be_resumed(start, project):
    process = start("--benchmark-json=part.json", "--embed-report=report", cache="cache")
    journal = wait_for_results(project.path / "cache" / "runs", 3)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == pytest.ExitCode.INTERRUPTED
    shown = (project.path / "output").read_text()
    assert "Benchmark fixture was not used" not in shown
    line = next(line for line in " ".join(shown.split()).split("embedcore: ") if "cases not reached" in line)
    line = line.partition(" --embed-resume")[0]
    models, scores = scores_of(project.path / "part.json")
    named = line.partition("(")[2].partition(", …")[0].split(", ")
    assert line.startswith(f"{len(MINI) - len(models)} of {len(MINI)} cases not reached (") and line.endswith(
        "; continue with"
    )
    assert len(named) == 5 and set(named) <= set(MINI) - set(models)
    assert 2 <= len(models) < len(MINI)  # the third may have been in the journal but not yet reported
    report = json.loads((project.path / "report" / "leaderboard.json").read_text())
    assert {row["model"] for row in report["rows"]} == set(models)
    assert not records.finished(records.read(journal))
    assert ended(start("--embed-resume", "--benchmark-json=rest.json", cache="cache")) == 0
    resumed, found = scores_of(project.path / "rest.json")
    assert sorted(resumed) == sorted(MINI)
    assert {model: found[model] for model in models} == scores
    assert records.finished(records.read(journal))


INTERRUPT = """
import signal, pytest
from embedcore.plugin.replay import clock
from embedcore.results.journal import Journal

calls = dict.fromkeys(["journal", "replay", "report"], 0)

def interrupt(where):
    calls[where] += 1
    if where == "MOMENT" and calls[where] == 2:
        signal.raise_signal(signal.SIGINT)

append, replay = Journal.append, clock.replay

def interrupted_append(self, line):
    append(self, line)
    if "model" in line:
        interrupt("journal")

def interrupted_replay(benchmark, durations, images):
    make = benchmark._make_stats
    def made(iterations):
        stats = make(iterations)
        interrupt("replay")  # pytest-benchmark has a benchmark now, but not one round of it
        return stats
    benchmark._make_stats = made
    replay(benchmark, durations, images)

Journal.append = interrupted_append
clock.replay = interrupted_replay

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    if report.when == "call":
        interrupt("report")
"""


@pytest.mark.parametrize("moment", ["journal", "replay", "report"])
def test_ctrl_c_after_a_measurement_waits_until_the_case_is_reported(start, project, moment):
    """Otherwise pytest-benchmark fails on a benchmark without rounds and writes no JSON."""
    (project.path / "conftest.py").write_text(INTERRUPT.replace("MOMENT", moment))
    process = start(
        "--benchmark-json=part.json",
        "--embed-report=report",
        "--embed-rounds=2",
        "--embed-isolation=none",
        roster=MINI[:3],
    )
    assert ended(process) == pytest.ExitCode.INTERRUPTED
    measured = records.models(journal_of(project.path / "cache"))
    reported = json.loads((project.path / "report" / "leaderboard.json").read_text())["rows"]
    assert len(measured) == 2
    assert scores_of(project.path / "part.json")[0] == measured
    assert {row["model"] for row in reported} == set(measured)


def wait_for_results(folder, count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in folder.glob("*.jsonl"):
            if path.read_bytes().count(b"\n") > count:
                return path
        time.sleep(0.01)
    raise AssertionError("no results appeared")


def test_a_second_process_on_the_same_journal_is_refused(start, project):
    first = start(cache="cache")
    wait_for_results(project.path / "cache" / "runs", 1)
    second = start("--embed-resume", cache="cache")
    assert ended(second) == pytest.ExitCode.USAGE_ERROR
    assert "in use by another process" in (project.path / "output").read_text()
    assert ended(first) == 0


def test_another_identity_is_refused(run, project):
    run("--embed-isolation=none", "-k", "test_vit or test_resnet")
    unfinish(project)
    outcome = run("--embed-isolation=none", "--embed-resume", "--embed-seed=5")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: --embed-resume / resume=True: *seed 0, now 5*"])


def unfinish(project):
    """Remove the last line of the only journal, as if the run had been interrupted."""
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


def test_resuming_nothing_starts_a_new_run(run):
    run("--embed-isolation=none", "--embed-resume", "-k", "test_vit").assert_outcomes(passed=1)


def test_the_budget_stops_the_sweep_which_continues_later(run, project, saved):
    outcome = run("--embed-budget=0.2s", "--benchmark-json=run.json")
    assert outcome.ret == pytest.ExitCode.INTERRUPTED
    assert "--embed-budget" in outcome.stdout.str()
    outcome = run("--embed-resume", "--benchmark-json=run.json", "--embed-budget=1h")
    outcome.assert_outcomes(passed=3)
    assert len(saved()["benchmarks"]) == 3


def test_cheapest_first_unless_asked_otherwise(run, project):
    (project.path / "roster.txt").write_text("resnet50.tv_in1k\ntest_vit.r160_in1k\nresnet18.a1_in1k\n")
    by_cost = [line for line in run("--collect-only", "-q").outlines if "::" in line]
    as_given = [line for line in run("--collect-only", "-q", "--embed-order=roster").outlines if "::" in line]
    assert [line.partition("[")[2] for line in by_cost] == [
        "test_vit.r160_in1k]",
        "resnet18.a1_in1k]",
        "resnet50.tv_in1k]",
    ]
    assert [line.partition("[")[2] for line in as_given] == [
        "resnet50.tv_in1k]",
        "test_vit.r160_in1k]",
        "resnet18.a1_in1k]",
    ]


def test_a_finished_run_measures_only_an_added_model(run, project, saved):
    run("--embed-isolation=none", "-k", "test_vit or test_resnet").assert_outcomes(passed=2)
    outcome = run("--embed-isolation=none", "--embed-resume", "--benchmark-json=run.json")
    outcome.assert_outcomes(passed=3)
    assert "resumed: 2 of 3 results are from the earlier session, which was finished" in outcome.stdout.str()
    assert len(saved()["benchmarks"]) == 3
    assert len(journal_of(project.path / "cache").entries) == 3
    outcome = run("--embed-isolation=none", "--embed-resume", "-k", "test_vit")
    outcome.assert_outcomes(passed=1)
    assert "is finished and contains all these models; all are measured again" in outcome.stdout.str()


def test_a_journal_contains_the_saved_run(run, project, saved):
    """Except for pytest-benchmark's facts of the machine and the time of saving."""
    run("--embed-isolation=none", "--benchmark-json=run.json", "-k", "test_vit or test_resnet")
    whole = saved()
    data = journal_of(project.path / "cache").data()
    assert data["machine_info"]["embedcore"] == whole["machine_info"]["embedcore"]
    whole["embedcore"].pop("ranking")
    assert data["embedcore"] == whole["embedcore"]
    assert data["version"] == whole["version"]
    assert data["commit_info"].keys() == whole["commit_info"].keys() != set()
    assert data["commit_info"]["id"] == whole["commit_info"]["id"]
    for ours, theirs in zip(data["benchmarks"], whole["benchmarks"], strict=True):
        assert ours["stats"].pop("data") == pytest.approx(theirs["stats"].pop("data"))
        for name in ("outliers", "iqr_outliers", "stddev_outliers"):
            assert type(ours["stats"].pop(name)) is type(theirs["stats"].pop(name))
        assert ours["stats"] == pytest.approx(theirs["stats"])
        ours.pop("stats"), theirs.pop("stats"), ours.pop("options"), theirs.pop("options")
        assert ours == theirs
