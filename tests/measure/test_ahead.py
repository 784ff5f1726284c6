"""The process of the next case loads its model while the case before is scored, and measures the same."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import pytest

from embedcore import Bench, CaseSettings, load_dataset
from embedcore.measure import bench as bench_module
from embedcore.measure import executors
from embedcore.measure.supervisor import descendants
from tests.measure.test_forward import unequal_fields

MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k")


@pytest.fixture
def bench(tmp_path):
    bench = Bench(CaseSettings(weights="random", rounds=2, device="cpu"), cache=tmp_path, timeout_s=120)
    yield bench
    bench.close()


@pytest.fixture
def started(monkeypatch):
    """The processes that are started: "ahead" or "fresh"."""
    seen = []

    class Child(executors.Child):
        def __init__(self, work, **options):
            seen.append("fresh" if work.args[2] is None else "ahead")
            super().__init__(work, **options)

    monkeypatch.setattr(executors, "Child", Child)
    return seen


def run(bench, dataset, model, following=None, stages=None):
    return bench.run(bench.case(model), dataset, stages, following=following and bench.case(following)).result


def test_a_process_started_ahead_measures_the_same(bench, dataset, started, tmp_path):
    first = run(bench, dataset, MODELS[0], MODELS[1])
    second = run(bench, dataset, MODELS[1])
    assert started == ["fresh", "ahead"]
    alone = Bench(bench.settings, cache=tmp_path / "other")
    for result in (first, second):
        assert result.status == "ok", result.reason
        assert not unequal_fields(result, run(alone, dataset, result.model))
    assert second.measured_s > 0 and second.peak_memory_mb > 0


def test_it_starts_after_the_last_round(bench, dataset, monkeypatch):
    seen, start = [], Bench._start_ahead

    def starting(self, case, dataset):
        seen.append("start")
        start(self, case, dataset)

    monkeypatch.setattr(Bench, "_start_ahead", starting)
    run(bench, dataset, MODELS[0], MODELS[1], lambda stage, done, total: seen.append(stage))
    assert seen.count("start") == 1
    assert set(seen[: seen.index("start")]) >= {"timing", "embedding", "scoring"}
    assert set(seen[seen.index("start") :]) <= {"start", "scoring"}


@pytest.mark.parametrize("other", ["model", "weights", "images"])
def test_it_is_not_used_for_another_case(bench, dataset, started, arrays, other):
    run(bench, dataset, MODELS[0], MODELS[1])
    case, images = bench.case(MODELS[1]), dataset
    if other == "model":
        case = bench.case(MODELS[0])
    elif other == "weights":
        case = bench.case(MODELS[1], seed=1)
    else:
        images = load_dataset(arrays[:8], list("aabbccdd"))
    result = bench.run(case, images).result
    assert result.status == "ok", result.reason
    assert started == ["fresh", "ahead", "fresh"] and bench._ahead is None


def test_one_that_died_is_replaced(bench, dataset, started):
    run(bench, dataset, MODELS[0], MODELS[1])
    supervisor = bench._ahead.child._process.pid
    while not (measuring := descendants(supervisor)):  # it has just been started
        time.sleep(0.01)
    for pid in measuring:
        os.kill(pid, signal.SIGKILL)
    result = run(bench, dataset, MODELS[1])
    assert result.status == "ok", result.reason
    assert started == ["fresh", "ahead", "fresh"]


def test_one_that_is_not_needed_ends(bench, dataset):
    run(bench, dataset, MODELS[0], MODELS[1])
    process = bench._ahead.child._process
    pid = process.pid
    bench.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_wrong_with_the_next_model_is_its_result(bench, dataset, started):
    assert run(bench, dataset, MODELS[0], "resnet5O.none").ok
    assert run(bench, dataset, "resnet5O.none").status == "error" and started == ["fresh"]
    large = bench.case(MODELS[1], max_params=0.001)
    bench.run(bench.case(MODELS[0]), dataset, following=large)
    assert bench.run(large, dataset).result.status == "too-large"


def test_without_processes_nothing_is_started(dataset, tmp_path):
    bench = Bench(CaseSettings(weights="random", rounds=1, device="cpu"), cache=tmp_path, isolation="none")
    run(bench, dataset, MODELS[0], MODELS[1])
    assert bench._ahead is None


def test_a_forkserver_that_cannot_start_costs_the_head_start_only(bench, dataset, monkeypatch):
    def refuse(*_):
        raise executors.StartError("no process")

    monkeypatch.setattr(bench_module, "Ahead", refuse)
    assert run(bench, dataset, MODELS[0], MODELS[1]).ok
    assert run(bench, dataset, MODELS[1]).ok


class Fake:
    """A process started ahead that must not be used."""

    closed = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize("why", ["__main__", "unsendable"])
def test_one_that_cannot_receive_the_pixels_ends(case, images, tmp_path, why):
    ahead = Fake()
    changes = {"embeddings_folder": tmp_path / "__main__"} if why == "__main__" else {"pixels": lambda: None}
    result = executors.ChildExecutor(120, ahead=ahead).run(case, dataclasses.replace(images, **changes))
    assert ahead.closed and result.status == ("ok" if why == "__main__" else "error"), result.reason
