"""``--embed-claim``: sessions without a controller share the cases of one run."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import time
from collections import Counter

import mini_models
import pytest
import records
from forked import ended

from embedcore.cli import main
from embedcore.plugin import claiming
from embedcore.results.claimed_run import read_claimed
from embedcore.results.claims import Claims, is_shared
from embedcore.results.journal import Journal
from embedcore.results.reading import read_run
from embedcore.results.record import Record

MINI = mini_models.MINI[:9]
MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")
CLAIM = ("--embed-claim=shared", "--embed-isolation=none")
REFUSED = "--embed-max-params=0.001"  # every model is too large: a final result without measuring
SHORT = "from embedcore.plugin import claiming\nclaiming.LEASE_S = 3.0\n"


@pytest.fixture
def start(start_sweep):
    """Start a session in a process of its own, with further arguments."""
    return functools.partial(start_sweep, roster=MINI)


def scores_of(path):
    """The fields that must be equal in any division of the cases, by model."""
    cases = [bench["extra_info"] for bench in json.loads(path.read_text())["benchmarks"]]
    keys = ("scores", "ci95", "verdicts", "sketch", "weights", "dim", "params_m", "gmacs")
    assert len({case["model"] for case in cases}) == len(cases)
    return {case["model"]: {key: case[key] for key in keys} for case in cases}


def wait_for_results(folder, count):
    """Wait until the journals of a claim folder have this many results."""
    deadline = time.monotonic() + 120
    while not is_shared(folder) or len(read_claimed(folder).results) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_of_four_workers_are_killed_and_one_comes_late(start, project):
    whole = start("--benchmark-json=whole.json")
    assert ended(whole) == 0
    (project.path / "conftest.py").write_text(SHORT)
    folder = project.path / "shared"
    workers = [start("--embed-claim=shared") for _ in range(4)]
    wait_for_results(folder, 2)
    for victim in workers[:2]:
        victim.kill()
    late = start("--embed-claim=shared")
    # 255: it was killed while it requested a child, and the forkserver, which knows the exit code, has died.
    assert {ended(victim) for victim in workers[:2]} <= {-signal.SIGKILL, 255}
    assert [ended(worker) for worker in (*workers[2:], late)] == [0, 0, 0], (project.path / "output").read_text()
    assert main(["merge", str(folder), "-o", str(project.path / "run.json")]) == 0
    assert scores_of(project.path / "run.json") == scores_of(project.path / "whole.json")
    assert len(scores_of(project.path / "run.json")) == len(MINI)
    assert read_run(project.path / "run.json").unreached == frozenset()
    measured = Counter(model for path in records.begun_in(folder) for model in records.models(records.read(path)))
    assert max(measured.values()) <= 2


def test_sigterm_saves_what_is_done_and_frees_the_rest_at_once(start, project):
    worker = start("--embed-claim=shared", "--benchmark-json=part.json")
    wait_for_results(project.path / "shared", 2)
    os.kill(worker.pid, signal.SIGTERM)
    assert ended(worker) == pytest.ExitCode.INTERRUPTED
    part = read_run(project.path / "part.json")
    assert 1 <= len(part.results) < len(MINI) and part.unreached == frozenset()
    assert ended(start("--embed-claim=shared", "--benchmark-json=rest.json")) == 0  # within the usual lease
    rest = read_run(project.path / "rest.json")
    assert sorted(result.model for result in (*part.results, *rest.results)) == sorted(MINI)
    assert "waiting up to" not in (project.path / "output").read_text()
    both = [str(project.path / name) for name in ("part.json", "rest.json")]
    assert main(["merge", *both, "-o", str(project.path / "both.json")]) == 0
    assert read_run(project.path / "shared").unreached == frozenset()


# In this process


def test_a_result_that_is_in_the_journal_is_done_though_its_test_was_interrupted(run, project, monkeypatch):
    keep = Record.keep

    def interrupted(self, result, *others):
        keep(self, result, *others)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Record, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):  # pytester's, of the session
            run(*CLAIM)
    run(*CLAIM).assert_outcomes(passed=2, deselected=1)
    journals = records.begun_in(project.path / "shared")
    assert sorted(model for path in journals for model in records.models(records.read(path))) == sorted(MODELS)


def test_a_worker_that_finds_nothing_left_ends_well(run, project, saved):
    first = run(*CLAIM, "--benchmark-json=first.json")
    first.assert_outcomes(passed=3)
    assert "claimed elsewhere" not in first.stdout.str()
    again = run(*CLAIM, "--benchmark-json=run.json")
    assert again.ret == 0
    again.assert_outcomes(deselected=3)
    again.stdout.fnmatch_lines(
        [
            "embedcore: 3 of 3 cases are done or claimed elsewhere",
            "embedcore: --embed-claim: no case is left: all 3 are done or claimed elsewhere",
        ]
    )
    block = saved()["embedcore"]
    assert (saved()["benchmarks"], block["unreached"]) == ([], [])
    assert block["selection"]["other_shards"] == sorted(MODELS)
    both = [str(project.path / name) for name in ("first.json", "run.json")]
    assert main(["merge", *both, "-o", str(project.path / "both.json")]) == 0
    assert len(read_run(project.path / "both.json").results) == 3


def test_other_tests_keep_their_order_around_the_cases(run, project):
    (project.path / "test_after.py").write_text("def test_one(): pass\n\ndef test_two(): pass\n")
    (project.path / "test_before.py").write_text("def test_zero(): pass\n")
    (project.path / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture(scope='session', autouse=True)\ndef common():\n    yield\n"
    )
    outcome = run(*CLAIM, "-v", "test_before.py", "test_models.py", "test_after.py")
    outcome.assert_outcomes(passed=6)
    shown = [line.partition("::")[2] for line in outcome.outlines if line.startswith("test_")]
    names = [words.split()[0] for words in shown if words]
    assert names[0] == "test_zero" and names[-2:] == ["test_one", "test_two"]
    assert {name.partition("[")[0] for name in names[1:-2]} == {"test_model"}


def test_the_first_failure_ends_the_session_with_x(run, project):
    (project.path / "test_before.py").write_text("def test_fails(): assert False\n")
    outcome = run(*CLAIM, "-x", "test_before.py", "test_models.py")
    outcome.assert_outcomes(failed=1, deselected=3)
    assert outcome.ret == pytest.ExitCode.TESTS_FAILED
    run(*CLAIM, "test_models.py").assert_outcomes(passed=3)


@pytest.fixture
def other(project):
    """A worker of the run in shared/, which has claimed one case."""
    test = f"test_models.py::test_model[{MODELS[1]}]"

    def other(lease_s=4.0):
        (project.path / "shared").mkdir(exist_ok=True)
        claims = Claims(project.path / "shared", "run", "other", lease_s)
        assert claims.claim(test, 0)
        return claims

    return other


def test_the_case_of_a_worker_that_lives_is_left_to_it(run, other, monkeypatch):
    monkeypatch.setattr(claiming, "LEASE_S", 4.0)
    with other():
        outcome = run(*CLAIM)
    outcome.assert_outcomes(passed=2, deselected=1)
    assert outcome.ret == 0
    outcome.stdout.fnmatch_lines(
        [
            "embedcore: 1 of 3 cases are done or claimed elsewhere",
            "*embedcore: waiting up to 4 s for the workers that have the last 1 case",
        ]
    )


def test_the_case_of_a_worker_that_has_died_is_taken_over(run, other, monkeypatch):
    monkeypatch.setattr(claiming, "LEASE_S", 1.0)
    other()  # its heartbeat is not renewed
    run(*CLAIM).assert_outcomes(passed=3)


def test_a_temporary_failure_is_tried_again_by_a_worker_that_joins_later(run, project, saved):
    (project.path / "factories.py").write_text(
        "import pathlib\nimport torch\n\n"
        "def flaky():\n"
        "    assert pathlib.Path('mended').exists(), 'not now'\n"
        "    return torch.nn.Flatten()\n"
    )
    (project.path / "ours.toml").write_text(
        '[[model]]\nname = "flaky"\nfactory = "factories:flaky"\ninput_size = 8\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    )
    run(*CLAIM, roster="ours.toml").assert_outcomes(failed=1)
    (project.path / "mended").touch()
    run(*CLAIM, roster="ours.toml").assert_outcomes(passed=1)
    run(*CLAIM, roster="ours.toml").assert_outcomes(deselected=1)
    run_ = read_run(project.path / "shared")
    assert [result.model for result in run_.results] == ["flaky"] and run_.excluded == ()


def test_a_final_failure_is_not_tried_again(run, project):
    run(*CLAIM, REFUSED).assert_outcomes(skipped=3)
    run(*CLAIM, REFUSED).assert_outcomes(deselected=3)


def test_a_case_without_a_result_does_not_hold_up_other_workers(run, project):
    (project.path / "conftest.py").write_text(
        "import pytest\n\n"
        "def pytest_runtest_setup(item):\n    if 'test_vit' in item.name:\n        pytest.skip('not here')\n"
    )
    run(*CLAIM).assert_outcomes(passed=2, skipped=1)
    assert read_run(project.path / "shared").unreached == {MODELS[1]}
    (project.path / "conftest.py").unlink()
    run(*CLAIM).assert_outcomes(passed=1, deselected=2)
    assert read_run(project.path / "shared").unreached == frozenset()


def test_a_case_that_does_not_fit_into_the_budget_is_left(run, monkeypatch):
    monkeypatch.setattr(Record, "expected_s", lambda record, test: 0.0 if "resnet" in test else 1e9)
    outcome = run(*CLAIM, "--embed-budget=1h")
    assert outcome.ret == pytest.ExitCode.INTERRUPTED
    outcome.assert_outcomes(passed=1, deselected=2)
    outcome.stdout.fnmatch_lines(["*--embed-budget of 1 h is used up: 2 cases left*any worker on shared continues*"])
    assert "cases not reached" not in outcome.stdout.str()


def test_without_a_journal_no_case_is_done(run, monkeypatch):
    append = Journal.append

    def full(journal, line):
        if "model" in line:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(journal, line)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        run(*CLAIM).assert_outcomes(passed=1, deselected=2)
    run(*CLAIM).assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--embed-shard=1/2"], "run it without --embed-shard: the workers divide the cases"),
        (["--embed-race"], "run it without --embed-race: a race compares all models in one process"),
        (["--embed-resume"], "run it without --embed-resume: a worker that joins the folder already resumes its run"),
    ],
)
def test_options_that_do_not_go_together(run, arguments, message):
    outcome = run(*CLAIM, *arguments)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines([f"ERROR: --embed-claim: {message}"])


def test_xdist_is_refused(run):
    outcome = run(*CLAIM, "-n1")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stdout.fnmatch_lines(["ERROR: --embed-claim: run it without pytest-xdist's -n: each worker is a session*"])


def test_a_worker_with_other_settings_is_refused(run, project):
    run(*CLAIM, REFUSED)
    outcome = run(*CLAIM, REFUSED, "--embed-seed=5", "--embed-timeout=7")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in outcome.errlines if line.startswith("ERROR: ")]
    assert "seed 0, now 5" in line and "timeout 3600.0, now 7.0" in line
    run(*CLAIM, REFUSED, "-k", "test_vit").assert_outcomes(deselected=3)
    assert len(list((project.path / "shared" / "workers").iterdir())) == 2
