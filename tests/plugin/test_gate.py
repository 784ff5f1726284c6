"""--embed-compare in a session: what it prints, its exit code, and suspect speeds."""

from __future__ import annotations

import json
import math
import signal

import msgspec
import pytest

import embedcore.ab.confirm
from embedcore.compare.interleaved import ratio_of
from embedcore.measure.bench import Bench


def change(path, **changes):
    data = json.loads(path.read_text())
    for bench in data["benchmarks"]:
        for key, value in changes.items():
            bench["extra_info"][key] = value(bench["extra_info"][key]) if callable(value) else value
    path.write_text(json.dumps(data))


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Treat the machine as idle: speeds measured on a busy machine are not compared."""
    run = Bench.run

    def undisturbed(*arguments, **settings):
        measured = run(*arguments, **settings)
        return measured._replace(result=msgspec.structs.replace(measured.result, crowded=None))

    monkeypatch.setattr(Bench, "run", undisturbed)


@pytest.fixture(scope="module")
def kept():
    """The saved run of one model, once a test has measured it."""
    return []


@pytest.fixture
def base(run, project, kept):
    """The saved run of one model; `run` then compares with it."""
    path = project.path / "base.json"
    if not kept:
        assert run("-k", "test_vit", "--benchmark-json=base.json").ret == 0
        kept.append(path.read_text())
    path.write_text(kept[0])
    return path


def test_an_equal_session_passes(run, base):
    result = run("-k", "test_vit", "--embed-compare=base.json", "--embed-fail-on=acc:0.5pt,acc5:1pt,drift:1e-3,status")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*compared with the saved run*", "base: base, timm*", "PASSED: 1 model compared*"])


def test_moved_embeddings_fail_the_session_also_under_xdist(run, base, project):
    change(base, sketch=lambda sketch: "AACA" + sketch[4:])
    limits = "--embed-fail-on=drift:1e-3"
    for more in ((), ("-n", "1")):
        result = run("-k", "test_vit", "--embed-compare=base.json", limits, "--benchmark-json=new.json", *more)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["REGRESSIONS: 1 model", "test_vit.r160_in1k *drift*", "FAILED: 1 model compared*"])
        assert (project.path / "new.json").exists()


SLOWER, EQUAL = (ratio_of([math.log(speed)] * 4, models=1) for speed in (0.8, 1.0))


@pytest.fixture
def confirmed(monkeypatch):
    """Fake confirmations: the answers to give, in order, and what was asked for."""
    answers, asked = [], []
    monkeypatch.setattr(Bench, "time", lambda self, result, dataset, stages, limit_s: result.processes[0])

    def confirm(comparison, names, limits, *, seconds, **_):
        asked.append((list(names), 0 < seconds <= 3600))
        return dict.fromkeys(names, answers.pop(0))

    monkeypatch.setattr(embedcore.ab.confirm, "confirm", confirm)
    return answers, asked


SPEED = ("-k", "test_vit", "--embed-compare=base.json", "--embed-fail-on=images_per_s:5%", "--embed-budget=1h")
SPEED += ("--embed-processes=2",)


def test_suspect_speeds_are_settled_by_interleaved_processes(run, base, confirmed):
    """Within the budget; the answer decides, or its reason is shown."""
    answers, asked = confirmed
    change(base, processes=[])  # of an older embedcore, so that two sessions cannot decide
    for answer, line in (EQUAL, "PASSED: 1 model compared*"), ("the budget was used up", "*the budget was used up*"):
        answers.append(answer)
        result = run(*SPEED)
        result.stdout.fnmatch_lines([line])
        assert result.ret == 0
    assert asked == [(["test_vit.r160_in1k"], True)] * 2


def test_the_controller_of_pytest_xdist_settles_suspect_speeds(run, base, confirmed):
    answers, asked = confirmed
    answers.append(SLOWER)
    change(base, processes=[])
    result = run(*SPEED, "-n", "1")
    result.stdout.fnmatch_lines(["test_vit.r160_in1k *images/s*"])
    assert result.ret == 1 and asked == [(["test_vit.r160_in1k"], True)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_speeds_are_settled_keeps_what_is_known(run, base, monkeypatch, number):
    change(base, processes=[])
    monkeypatch.setattr(embedcore.ab.confirm, "confirm", lambda *_, **__: signal.raise_signal(number))
    result = run(*SPEED)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["*compared with the saved run*", "*not judged: speed of 1 (*", "ERROR: *interrupted while suspect*"]
    )


def test_a_first_run_must_be_asked_for(run, project):
    result = run("-k", "test_vit", "--embed-compare=main")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: nothing is saved at main yet*--embed-allow-no-baseline accepts a first run"])
    result = run("-k", "test_vit", "--embed-compare=main", "--embed-allow-no-baseline", "--benchmark-save=main")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no baseline: nothing is saved at main yet"])
    assert run("-k", "test_vit", "--embed-compare=main", "--embed-fail-on=status").ret == 0
    result = run("-k", "test_vit", "--embed-compare=mian", "--embed-allow-no-baseline")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: no saved run mian*did you mean main?"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--embed-compare=base.json", "--embed-fail-on=speed:5%"), "*'speed' is not one of*"),
        (("--embed-fail-on=status",), "*needs --embed-compare BASE*"),
        (("--embed-compare=roster.txt",), "*roster.txt is not JSON*"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_measured(run, project, arguments, message):
    (project.path / "base.json").write_text(
        json.dumps({"machine_info": {}, "benchmarks": [], "embedcore": {"schema": 1}})
    )
    result = run("-k", "test_vit", *arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert "test_models.py" not in result.stdout.str()


def test_what_cannot_be_compared_is_exit_code_2_after_the_leaderboards(run, base, project):
    data = json.loads(base.read_text())
    data["embedcore"]["dataset"]["fingerprint"] = "beef"
    data["machine_info"]["embedcore"]["processor"] = "another"
    base.write_text(json.dumps(data))
    result = run("-k", "test_vit", "--embed-compare=base.json", "--benchmark-json=new.json")
    assert result.ret == 2 and (project.path / "new.json").exists()
    result.stdout.fnmatch_lines(
        ["CANNOT PASS: judged: nothing; not judged: *", "ERROR: --embed-compare: this session*another dataset*"]
    )


def test_a_session_that_measured_nothing_fails(run, project):
    result = run(weights="auto")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR: nothing was measured: 0 of 3 cases (3 no-weights)"])
    assert run("--collect-only").ret == 0
    (project.path / "test_other.py").write_text("def test_other(): pass")
    assert project.runpytest_inprocess("test_other.py").ret == 0


TWO_DATASETS = """
import shutil
import pytest
from pathlib import Path
from embedcore import load_dataset

HERE = Path(__file__).parent

@pytest.fixture(scope="session")
def others():
    shutil.copytree(HERE / "images", HERE / "others", dirs_exist_ok=True)
    (HERE / "others" / "class2" / "2.png").rename(HERE / "others" / "class1" / "9.png")
    return load_dataset(HERE / "others")

def test_here(embed_model, embed_images, embed_measure, embed_replay):
    embed_replay(embed_measure(embed_model, embed_images))

def test_there(embed_model, others, embed_measure, embed_replay):
    embed_replay(embed_measure(embed_model, others))
"""


def test_each_of_several_datasets_is_compared_with_itself(run, project, confirmed):
    """A suspect speed is one case, and its confirmation changes nothing on the other dataset."""
    project.makepyfile(test_models=TWO_DATASETS)
    arguments = ("-k", "test_vit", "--embed-compare=base.json", "--embed-fail-on=drift:1e-3,images_per_s:5%")
    arguments += ("--embed-budget=1h", "--embed-processes=2")
    assert run("-k", "test_vit", "--benchmark-json=base.json").ret == 0
    data = json.loads((project.path / "base.json").read_text())
    here, there = (bench["extra_info"] for bench in data["benchmarks"])
    here["processes"], there["dim"] = [], 7
    (project.path / "base.json").write_text(json.dumps(data))
    answers, asked = confirmed
    answers.append(EQUAL)
    result = run(*arguments)
    assert result.ret == 1 and "test_vit.r160_in1k on images" in asked[0][0]
    text = " ".join(result.stdout.str().split())
    assert "REGRESSIONS: 1 model" in text and "test_vit.r160_in1k on others drift 7 wide 64 wide" in text


def test_an_undecided_speed_fails_only_on_request(run, base):
    arguments = ("-k", "test_vit", "--embed-compare=base.json", "--embed-processes=1")
    assert run(*arguments).ret == 0
    result = run(*arguments, "--embed-undecided=fail")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["PASSED what was judged: scores, drift and memory of 1; not judged: speed of 1*"])
