"""A session with --embed-distractors: the saved JSON, the tables and the chart."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from embedcore.measure.bench import Bench
from embedcore.results.verdicts import unpack_classes

INLINE = "--embed-isolation=none"
JSON = "--benchmark-json=run.json"
TWO = ("-k", "test_vit or test_resnet")


@pytest.fixture
def distractors(project):
    """A folder of 100 images of no class in the project."""
    rng = np.random.default_rng(9)
    for number in range(100):
        path = project.path / "others" / str(number % 4) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.normal(rng.integers(30, 220, 3), 40, (40, 50, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return "--embed-distractors=others"


def test_acc_in_larger_galleries_is_saved_and_shown(run, project, saved, distractors):
    outcome = run(distractors, INLINE, JSON, *TWO, "--embed-report=report")
    outcome.assert_outcomes(passed=2)
    outcome.stdout.fnmatch_lines(["embedcore: distractors: 100 images of others"])
    data = saved()
    block = data["embedcore"]
    assert block["settings"]["distractors"] == "others"
    assert block["dataset"]["notes"][-1] == "distractors: 100 images of others"
    for bench in data["benchmarks"]:
        info = bench["extra_info"]
        found = info["distractors"]
        assert set(found) == {"count", "beaten_by", "acc", "ci95"} and found["count"] == 100
        assert len(unpack_classes(found["beaten_by"])) == 9
        assert set(found["acc"]) == set(found["ci95"]) == {"10x", "all"}
        assert found["acc"]["all"] <= found["acc"]["10x"] <= info["scores"]["acc"]
    assert "acc, 10× gallery" in (project.path / "report" / "leaderboard.md").read_text()
    for row in csv.DictReader((project.path / "report" / "leaderboard.csv").open()):
        assert 0 <= float(row["acc_10x_low"]) <= float(row["acc_10x"]) <= float(row["acc_10x_high"]) <= 1
        assert "acc_100x" not in row and "acc_all" in row and row["marks"] is not None
    rows = json.loads((project.path / "report" / "leaderboard.json").read_text())["rows"]
    assert all(set(row["distractors"]) == {"count", "acc", "ci95"} for row in rows)
    assert "acc as the gallery grows" in (project.path / "report" / "index.html").read_text()


def test_they_are_part_of_a_runs_identity_by_content(run, project, saved, distractors, monkeypatch):
    measured, original = [], Bench.run

    def counted(self, case, *arguments, **options):
        measured.append(case.model)
        return original(self, case, *arguments, **options)

    monkeypatch.setattr(Bench, "run", counted)
    run(distractors, INLINE, "-k", "test_vit").assert_outcomes(passed=1)
    (project.path / "others").rename(project.path / "moved")
    more = "--embed-distractors=moved", INLINE, "--embed-resume", "-k", "test_vit or test_resnet"  # else it is finished
    run(*more).assert_outcomes(passed=2)
    assert len(measured) == 2
    (project.path / "moved" / "0" / "0.png").unlink()
    run(*more).assert_outcomes(passed=2)
    assert len(measured) == 4


def test_a_width_that_differs_is_no_failure(run, project, saved):
    np.save(project.path / "others.npy", np.eye(5))
    run("--embed-distractors=others.npy", JSON, INLINE, "-k", "test_vit").assert_outcomes(passed=1)
    (bench,) = saved()["benchmarks"]
    assert bench["extra_info"]["distractors"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--embed-distractors=nowhere",), "ERROR: distractors 'nowhere': no such file or folder"),
        (("--embed-distractors=images", "--embed-race"), "*--embed-race*--embed-distractors*"),
        (("--embed-distractors=images",), "*all images of images are copies of labelled images*"),
    ],
)
def test_what_cannot_work_is_one_line(run, arguments, message):
    outcome = run(*arguments, INLINE)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([message])
