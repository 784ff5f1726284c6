"""Benchmark files with several datasets, and plugins that run a test more than once."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil

import msgspec
import pytest
import records

from embedcore.measure.bench import Bench, Measured
from embedcore.measure.outcome import failure
from embedcore.plugin import progress
from embedcore.report.gallery.gallery import dataset_of
from embedcore.results.reading import read_run

TWO_DATASETS = """
import pytest
from pathlib import Path
from embedcore import load_dataset

HERE = Path(__file__).parent

@pytest.fixture(scope="session")
def others():
    return load_dataset(str(HERE / "others"))

def test_here(embed_model, embed_images, embed_measure, embed_replay):
    embed_replay(embed_measure(embed_model, embed_images))

def test_there(embed_model, others, embed_measure, embed_replay):
    embed_replay(embed_measure(embed_model, others))
"""


def test_two_datasets_in_one_file_are_two_measurements(run, project, saved):
    two_datasets(project)
    arguments = ("-k", "test_vit", "--embed-isolation=none", "--benchmark-json=run.json", "--embed-report=report")
    outcome = run(*arguments)
    outcome.assert_outcomes(passed=2)
    block = saved()["embedcore"]
    assert [(data["name"], data["classes"]) for data in block["datasets"]] == [("images", 3), ("others", 2)]
    assert block["dataset"] == block["datasets"][0]
    cases = {bench["name"].partition("[")[0]: bench["extra_info"] for bench in saved()["benchmarks"]}
    assert cases["test_here"]["dataset"] == block["datasets"][0]["fingerprint"]
    assert cases["test_there"]["dataset"] == block["datasets"][1]["fingerprint"]
    assert cases["test_here"]["verdicts"] != cases["test_there"]["verdicts"]
    rows = json.loads((project.path / "report" / "leaderboard.json").read_text())["rows"]
    assert {row["dataset"] for row in rows} == {"images", "others"}
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    assert len(records.read(path).entries) == 2


def test_columns_that_an_option_names(run, project, saved):
    rows = [f"{path.relative_to(project.path)},{path.parent.name},x" for path in project.path.glob("images/*/*.png")]
    (project.path / "list.csv").write_text("\n".join(["photo,class,category", *sorted(rows)]))
    arguments = ("-k", "test_vit", "--embed-isolation=none", "--benchmark-json=run.json")
    refused = run(*arguments, dataset="csv:list.csv")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*'class' or 'category' may be the label: choose a column, such as --embed-columns label=class*"]
    )
    run(*arguments, "--embed-columns=path=photo,label=class", dataset="csv:list.csv").assert_outcomes(passed=1)
    block = saved()["embedcore"]
    assert block["dataset"]["classes"] == 3 and block["settings"]["columns"] == "path=photo,label=class"
    again = dataset_of(block["settings"], project.path / "cache")
    assert again is not None and again.fingerprint == block["dataset"]["fingerprint"]


@pytest.mark.parametrize("value", ["photo", "path", "path=", "label=a,label=b", "kind=x"])
def test_wrong_columns_are_named_at_once(run, value):
    outcome = run(f"--embed-columns={value}")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([f"*argument --embed-columns: '{value}': write path=NAME,label=NAME*"])


def test_an_archive_is_a_dataset(run, project, saved):
    shutil.make_archive(str(project.path / "photos"), "gztar", project.path, "images")
    arguments = ("-k", "test_vit", "--embed-isolation=none", "--benchmark-json=run.json")
    run(*arguments, dataset="photos.tar.gz").assert_outcomes(passed=1)
    assert (saved()["embedcore"]["dataset"]["name"], saved()["embedcore"]["dataset"]["classes"]) == ("photos", 3)
    run(*arguments, "--embed-split=a:b", dataset="photos.tar.gz").stderr.fnmatch_lines(["*split 'a:b': no images in*"])


def two_datasets(project):
    project.makepyfile(test_models=TWO_DATASETS)
    shutil.copytree(project.path / "images", project.path / "others")
    for file in (project.path / "others" / "class2").iterdir():
        file.rename(file.parent.parent / "class1" / f"moved{file.name}")  # a class less


def test_a_second_dataset_is_not_measured_again_on_resume(run, project, saved):
    two_datasets(project)
    arguments = ("-k", "test_vit", "--embed-isolation=none")
    run(*arguments)
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))  # as if killed before the second case
    outcome = run(*arguments, "--embed-resume", "--benchmark-json=run.json")
    outcome.assert_outcomes(passed=2)
    outcome.stdout.fnmatch_lines(["resumed: 1 of 2 results are from the earlier session"])
    contents = records.read(path)
    assert records.finished(contents) and len(contents.entries) == 2
    tests = [entry.test.partition("::")[2] for entry in contents.entries]
    assert tests == ["test_here[test_vit.r160_in1k]", "test_there[test_vit.r160_in1k]"]
    assert [bench["name"] for bench in saved()["benchmarks"]] == tests
    names = {bench["name"]: bench["extra_info"]["dataset"] for bench in contents.data()["benchmarks"]}
    assert names == {bench["name"]: bench["extra_info"]["dataset"] for bench in saved()["benchmarks"]}


def test_the_number_of_cases_left_falls_for_a_files_own_datasets(run, project, monkeypatch):
    two_datasets(project)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    text = run("-k", "test_there", "--embed-isolation=none").stdout.str()
    assert re.findall(r"(\d cases? left)", text) == ["2 cases left", "1 case left", "0 cases left"]
    places = re.findall(r"\[(\d)/3\]", text)
    assert places == sorted(places) and {*places} == {"1", "2", "3"}
    assert "=== images ===" not in text  # which has no result
    assert "not reached" not in text


def test_a_test_that_is_repeated_is_measured_each_time(run, project, saved):
    outcome = run("-k", "test_vit", "--count=2", "--embed-isolation=none", "--benchmark-json=run.json")
    outcome.assert_outcomes(passed=2)
    first, second = (bench["extra_info"] for bench in saved()["benchmarks"])
    assert first["scores"] == second["scores"] and first["durations"] != second["durations"]
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    kept = [list(result.durations) for _, result in records.read(path).entries]
    assert kept == [first["durations"], second["durations"]]
    (read,) = read_run(project.path / "run.json").results
    assert list(read.durations) == second["durations"]


def test_a_temporary_failure_is_measured_again_by_reruns(run, project, saved, monkeypatch):
    measured = Bench.run
    calls = []

    def fails_at_first(self, case, dataset, *arguments, **settings):
        calls.append(case.model)
        if len(calls) == 1:
            failed = failure(case, RuntimeError("for a moment"))
            return Measured(msgspec.structs.replace(failed, dataset=dataset.fingerprint), None)
        return measured(self, case, dataset, *arguments, **settings)

    monkeypatch.setattr(Bench, "run", fails_at_first)
    outcome = run("-k", "test_vit", "--reruns=2", "--embed-isolation=none", "--benchmark-json=run.json")
    outcome.assert_outcomes(passed=1)
    assert len(calls) == 2
    (bench,) = saved()["benchmarks"]
    assert bench["extra_info"]["status"] == "ok" and saved()["embedcore"]["excluded"] == []
    (path,) = (project.path / "cache" / "runs").glob("*.jsonl")
    contents = records.read(path)
    assert [result.status for _, result in contents.entries] == ["error", "ok"] and records.finished(contents)


def test_a_histogram_without_its_package_is_a_line_before_anything_is_measured(run, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pygal" else find_spec(name))
    outcome = run("--benchmark-histogram=chart", "--embed-isolation=none")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: --benchmark-histogram: * pip install 'pytest-benchmark[[]histogram[]]'*"])
    assert "leaderboards" not in outcome.stdout.str()


def test_forked_tests_are_refused_before_anything_is_measured(run, project):
    project.makeconftest("def pytest_addoption(parser): parser.addoption('--forked', action='store_true')")
    outcome = run("--forked")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: --forked is not supported: *"])
