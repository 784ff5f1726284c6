"""What models retrieve, from the measurement to the report, and from a saved run later."""

from __future__ import annotations

import json
import shutil

import pytest
from galleries import retrieved

from embedcore.cli import main

MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")
IN_PROCESS = "--embed-isolation=none"


def kept(project):
    return sorted((project.path / "cache" / "neighbours").glob("*.npz"))


def test_the_report_shows_what_the_leaders_retrieve(project, run, saved):
    run("--embed-report=report", "--benchmark-json=run.json", "-k", "resnet or vit", IN_PROCESS).assert_outcomes(
        passed=2, deselected=1
    )
    data = retrieved(project.path / "report" / "index.html")
    measured = {bench["extra_info"]["model"] for bench in saved()["benchmarks"]}
    assert data["answers"].keys() == measured and len(kept(project)) == 2
    assert data["missing"] == 0 and {image[0] for image in data["images"]} <= {
        f"class{label}/{number}.png" for label in range(3) for number in range(3)
    }
    for model in measured:
        for query, answers in zip(data["queries"], data["answers"][model], strict=True):
            assert len(answers) == 5 and query not in [image for image, _ in answers]
            assert answers == sorted(answers, key=lambda answer: -answer[1])
    # Later, from the saved run: with the cache and without it.
    project.chdir()
    assert main(["report", "run.json", "-o", "later", "--cache", "cache"]) == 0
    later = retrieved(project.path / "later" / "index.html")
    assert later["answers"] == data["answers"] and later["missing"] == 0
    shutil.rmtree(project.path / "cache")
    assert main(["report", "run.json", "-o", "without", "--cache", "cache"]) == 0
    page = (project.path / "without" / "index.html").read_text(encoding="utf-8")
    assert 'id="retrieved"' not in page and "--cache DIR" in page


def test_neighbours_of_other_models_are_removed_unless_requested(project, run, monkeypatch):
    monkeypatch.setattr("embedcore.results.neighbours.BEST", 0)
    roster = "test_vit.r160_in1k,test_vit2.r160_in1k,test_vit3.r160_in1k"
    arguments = (IN_PROCESS, "--embed-report=report")
    run(*arguments, roster=roster).assert_outcomes(passed=3)
    assert len(kept(project)) == 1  # of the leader of the one family
    leader = list(retrieved(project.path / "report" / "index.html")["answers"])
    last = json.loads((project.path / "report" / "leaderboard.json").read_text())["rows"][-1]["model"]
    shutil.rmtree(project.path / "cache" / "neighbours")
    run(*arguments, f"--embed-gallery={last}", roster=roster).assert_outcomes(passed=3)
    assert list(retrieved(project.path / "report" / "index.html")["answers"]) == [*leader, last]
    assert last in retrieved(project.path / "report" / "index.html")["examples"]


def test_a_resumed_run_shows_what_was_measured_before(project, run):
    cases = ("-k", "resnet or vit")
    run(*cases).assert_outcomes(passed=2, deselected=1)  # in processes of their own
    before = kept(project)
    (journal,) = (project.path / "cache" / "runs").glob("*.jsonl")
    assert len(before) == 2 and all(path.name.startswith(f"{journal.stem}.") for path in before)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))  # as if interrupted in the second case
    outcome = run(*cases, "--embed-resume", "--embed-report=report")
    outcome.stdout.fnmatch_lines(["resumed: 1 of 2 results are from the earlier session*"])
    assert len(retrieved(project.path / "report" / "index.html")["answers"]) == 2


def test_a_model_that_is_not_in_the_roster_is_a_usage_error(run):
    result = run("--embed-gallery=test_vitt.r160_in1k")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--embed-gallery: 'test_vitt.r160_in1k' is not among the 3 models of this roster (did you mean test_vit.*"]
    )
