"""--embed-executor: cases on the nodes of a cluster, made-up ones in this process and two of Ray."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import forked
import mini_models
import psutil
import pytest
import records
from forked import ended
from galleries import retrieved

from embedcore.errors import UsageError
from embedcore.measure import ray_nodes
from embedcore.measure.cluster import Slot
from embedcore.measure.node_worker import NodeWorker
from embedcore.measure.ray_nodes import RayNodes
from embedcore.plugin import checks, start
from embedcore.plugin.options import Options
from embedcore.results.reading import read_run

EQUAL = ("scores", "ci95", "verdicts", "sketch", "weights", "dim", "params_m", "gmacs")
RAY = "--embed-executor=ray"
ISOLATED = "--embed-isolation=process"


class LocalNodes:
    """Two nodes in this process. A call runs when it is waited for."""

    def __init__(self, address, setup, *, cards):
        self.setup = setup

    def slots(self):
        return [Slot("1", "one", 1.0), Slot("2", "two", 1.0)]

    def start(self, slot):
        worker = NodeWorker()
        return worker, self.call(worker, "begin", str(Path.cwd()), self.setup)

    def call(self, worker, method, *arguments):
        return functools.partial(getattr(worker, method), *arguments)

    def wait(self, calls, seconds):
        return calls[-1:]

    def answer(self, call):
        return call()

    def stop(self, worker):
        pass

    def close(self):
        pass


@pytest.fixture
def local_nodes(monkeypatch):
    monkeypatch.setattr(start, "RayNodes", LocalNodes)
    monkeypatch.setattr(checks, "check_ray", lambda: None)


def equal_fields(path):
    return {result.model: {name: getattr(result, name) for name in EQUAL} for result in read_run(path).results}


def test_the_results_are_those_of_the_other_executor(run, project, local_nodes):
    report = f"--embed-report={project.path / 'report'}"
    assert run(ISOLATED, "--benchmark-json=here.json", "--embed-cache=other").ret == 0
    outcome = run(RAY, "--benchmark-json=there.json", "--embed-processes=2", report)
    assert outcome.ret == 0
    outcome.stdout.fnmatch_lines(["embedcore: 2 workers on *"])
    here, there = project.path / "here.json", project.path / "there.json"
    assert equal_fields(here) == equal_fields(there)
    results = read_run(there).results
    assert {result.node for result in results} == {"one", "two"}
    assert {result.processor for result in results} == {read_run(there).processor} == {read_run(here).processor}
    assert all(len(result.processes) == 2 for result in results)
    kept = [path.name for path in (project.path / "cache" / "neighbours").glob("*.npz")]
    assert len(kept) == 3 and not any(name.startswith("worker-") for name in kept)
    gallery = retrieved(project.path / "report" / "index.html")
    assert gallery["answers"].keys() == {result.model for result in results} and gallery["missing"] == 0


FALLING = """
import os, signal

def model():
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def falling(project):
    """The roster of a model whose factory ends its process."""
    (project.path / "falling.py").write_text(FALLING)
    (project.path / "falling.toml").write_text('[[model]]\nname = "falls"\nfactory = "falling:model"\n')
    return "roster.txt,falling.toml"


def excluded(path):
    return [(result.model, result.status, result.reason.partition(";")[0]) for result in read_run(path).excluded]


def test_a_model_that_crashes_has_the_same_status_on_a_node(run, project, local_nodes, falling):
    for executor, name in ((ISOLATED, "here.json"), (RAY, "there.json")):
        assert run(executor, f"--benchmark-json={name}", "-k", "falls or vit", roster=falling).ret == 1
    ((model, status, reason),) = excluded(project.path / "there.json")
    assert (model, status) == ("falls", "crashed") and "SIGSEGV" in reason
    assert excluded(project.path / "there.json") == excluded(project.path / "here.json")


def test_a_run_of_one_executor_is_resumed_with_the_other(run, local_nodes):
    assert run(RAY, "-k", "vit").ret == 0
    outcome = run(ISOLATED, "--embed-resume", "-k", "vit or resnet")
    outcome.stdout.fnmatch_lines(["resumed: 1 of 2 results are from the earlier session*"])
    outcome = run(RAY, "--embed-resume")
    outcome.stdout.fnmatch_lines(["resumed: 2 of 3 results are from the earlier session*"])


def test_a_node_without_the_images_is_named(run, local_nodes, monkeypatch):
    load, loaded = start.dataset_of, []

    def load_once(*arguments):
        if loaded:
            raise UsageError("no such folder of images: /data")
        loaded.append(load(*arguments))
        return loaded[0]

    monkeypatch.setattr(start, "dataset_of", load_once)
    outcome = run(RAY)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: node two cannot measure: no such folder of images: /data"])


@pytest.mark.parametrize(
    ("changes", "several", "without"),
    [
        ({"race": True}, False, "--embed-race"),
        ({"isolation": "none"}, False, "--embed-isolation none"),
        ({"device": "cuda:1"}, False, "--embed-device cuda:1"),
        ({}, True, "pytest-xdist's -n"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, several, without):
    options = Options.from_values({"executor": "ray", **changes}, {"executor", *changes})
    with pytest.raises(UsageError, match=f"run it without {without}$"):
        checks.check_options(options, several_workers=several)


def test_without_ray_a_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr(ray_nodes, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    monkeypatch.setattr(start, "dataset_of", None)  # before images are read
    outcome = run(RAY)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: --embed-executor ray needs ray: pip install 'embedcore[[]ray]'"])


@pytest.mark.parametrize("scheme", ["ray://", ""])
def test_a_cluster_that_does_not_answer_is_an_error_at_once(closed_port, scheme):
    address = scheme + closed_port.removeprefix("http://")
    with pytest.raises(UsageError, match=f"^no Ray cluster answers at {address}: Connection refused$"):
        RayNodes(address, b"", cards=False)


# With Ray

MINI = mini_models.MINI[:8]


@pytest.fixture
def two_nodes(project, monkeypatch):
    """A cluster of Ray on this machine: a head without processors, and the nodes a and b."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    home = project.path / "home"
    home.mkdir()
    for name, value in {"HOME": home, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": 0}.items():
        monkeypatch.setenv(name, str(value))
    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 8}  # a busy machine answers late
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, _system_config=quick)
        yield cluster, {name: cluster.add_node(num_cpus=1, node_name=name) for name in "ab"}
    finally:
        cluster.shutdown()


def test_a_node_of_ray_is_killed_and_nothing_is_lost(run, project, two_nodes, falling):
    cluster, nodes = two_nodes
    (project.path / "roster.txt").write_text("\n".join(MINI))
    session = forked.start(
        forked.lean_session,
        *("test_models.py", "-p", "no:cacheprovider", "--embed-dataset=images", f"--embed-roster={falling}"),
        *("--embed-weights=random", f"--embed-cache={project.path / 'there'}", "--embed-rounds=2"),
        *("--embed-processes=1", RAY, "--benchmark-json=there.json"),
        folder=project.path,
        output=project.path / "output",
        environment={**os.environ, "RAY_ADDRESS": cluster.address},
    )
    deadline = time.monotonic() + 500
    while session.is_alive() and nodes_in(project.path / "there") != {"a", "b"} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session.is_alive(), (project.path / "output").read_text()
    assert nodes_in(project.path / "there") == {"a", "b"}
    kill_all(nodes["b"].all_processes["raylet"][0].process.pid)
    assert ended(session) == pytest.ExitCode.TESTS_FAILED, (project.path / "output").read_text()
    (journal,) = (project.path / "there" / "runs").glob("*.jsonl")
    assert sorted(records.models(records.read(journal))) == sorted([*MINI, "falls"])
    assert "begun again, since its worker was lost: node b: " in (project.path / "output").read_text()
    assert run(ISOLATED, "--benchmark-json=here.json", roster=falling).ret == pytest.ExitCode.TESTS_FAILED
    assert equal_fields(project.path / "there.json") == equal_fields(project.path / "here.json")
    assert excluded(project.path / "there.json") == excluded(project.path / "here.json") != []


def nodes_in(cache):
    """The nodes of the results in the journal."""
    return {entry.result.node for entry in records.read(*records.begun_in(cache / "runs")).entries}


def kill_all(pid):
    """Kill a process and all below it at once, as a machine that goes away."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
