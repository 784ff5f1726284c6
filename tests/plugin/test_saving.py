from __future__ import annotations

import subprocess
import sys

import pytest

from embedcore.results.reading import read_run
from embedcore.zoo.tags import CHOSEN


def test_save_and_json_together_are_both_whole(run, project, saved):
    run("--benchmark-json=run.json", "--benchmark-save=mini", "-k", "test_vit", "--embed-isolation=none")
    stored = read_run("mini", storage=project.path / ".benchmarks")
    direct = read_run(project.path / "run.json")
    assert stored.results[0].model == direct.results[0].model == "test_vit.r160_in1k"
    assert stored.results[0].scores == direct.results[0].scores
    assert stored.dataset == direct.dataset
    assert stored.ranking == direct.ranking and [model_rank.rank95 for model_rank in direct.ranking] == [(1, 1)]
    assert stored.timm == direct.timm is not None


def test_the_json_is_complete_if_no_case_is_measured(run, project, saved):
    outcome = run("--benchmark-json=run.json", "--benchmark-save=none", "--embed-max-params=0.001")
    outcome.assert_outcomes(skipped=3)
    outcome.stdout.fnmatch_lines(["Wrote benchmark data in: *run.json (by embedcore)"])
    stored = read_run("none", storage=project.path / ".benchmarks")
    direct = read_run(project.path / "run.json")
    assert [result.status for result in direct.excluded] == ["too-large"] * 3
    assert [result.model for result in stored.excluded] == [result.model for result in direct.excluded]
    assert saved()["benchmarks"] == []
    assert saved().keys() >= {"machine_info", "commit_info", "datetime", "version", "embedcore"}
    assert direct.timm is not None
    subprocess.run([sys.executable, "-m", "pytest_benchmark", "compare"], cwd=project.path, check=True)


def test_models_that_a_keyword_of_the_roster_lacks_are_saved(run, saved, monkeypatch):
    monkeypatch.setitem(CHOSEN, "starter", lambda: ([], [("gone.x", "gone.x is not in timm 1")]))
    run("--benchmark-json=run.json", "--embed-max-params=0.001", roster="test_vit.r160_in1k, starter")
    assert saved()["embedcore"]["settings"]["roster_missing"] == [["gone.x", "gone.x is not in timm 1"]]


def test_a_json_that_cannot_be_written_is_a_usage_error_at_the_end(run, project):
    outcome = run("--benchmark-json=/proc/run.json", "--embed-max-params=0.001", "--embed-report=report")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stdout.fnmatch_lines(["ERROR: --benchmark-json*/proc/run.json*"])
    assert (project.path / "report" / "leaderboard.json").exists()  # one failure does not prevent the other file


def test_leaderboards_and_json_also_with_benchmarks_disabled(run, saved, project):
    arguments = ("--embed-isolation=none", "-k", "test_vit", "--benchmark-json=run.json")
    run(*arguments)
    timed = saved()
    outcome = run(*arguments, "--benchmark-disable")
    outcome.assert_outcomes(passed=1)
    assert "Overall by acc (1 model)" in outcome.stdout.str()
    (ours,), (theirs,) = saved()["benchmarks"], timed["benchmarks"]
    assert {*ours} == {*theirs}
    for key in ("name", "fullname", "group", "param", "params"):
        assert ours[key] == theirs[key]
    assert {*ours["stats"]} == {*theirs["stats"]}
    assert ours["stats"]["median"] == pytest.approx(1 / ours["extra_info"]["images_per_s"]["forward"])
    assert saved()["embedcore"].keys() == timed["embedcore"].keys()
    assert read_run(project.path / "run.json").results[0].ok


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark-compare-fail=median:5%"], "--benchmark-compare-fail needs --benchmark-compare,"),
        (["--benchmark-compare-fail=median:5%", "--benchmark-compare=7"], "no saved run matches '7'"),
        (["--benchmark-json=nowhere/run.json"], "--benchmark-json: no such folder: *nowhere"),
    ],
)
def test_errors_of_pytest_benchmark_at_the_end_are_reported_at_the_start(run, project, arguments, message):
    outcome = run(*arguments)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([f"ERROR: *{message}*"])
    assert not list(project.path.glob("cache/runs/*"))
