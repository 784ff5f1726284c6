"""A measured case is timed again, in a fresh process, under the settings that it was measured with."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import sys

import pytest
import torch

from embedcore.embed import pinned, timing
from embedcore.images.load_dataset import load_dataset
from embedcore.measure import measure, timing_process
from embedcore.measure.bench import Bench
from embedcore.measure.case import CaseSettings
from embedcore.results.process import TimingProcess
from embedcore.zoo.backbone import Backbone

MODEL = "test_vit.r160_in1k"
SETTINGS = CaseSettings(weights="random", device="cpu", batch_size=4, rounds=2, processes=2)


@pytest.fixture
def dataset(arrays):
    return load_dataset(arrays[:8], [str(index % 4) for index in range(8)])


@pytest.fixture
def bench(tmp_path):
    return Bench(SETTINGS, cache=tmp_path, isolation="none")


def test_the_second_process_does_the_work_of_the_first(bench, dataset, monkeypatch):
    shapes = []
    embed = Backbone.embed

    def seen(self, x):
        shapes.append((tuple(x.shape), torch.get_num_threads(), x.is_contiguous(memory_format=torch.channels_last)))
        return embed(self, x)

    monkeypatch.setattr(Backbone, "embed", seen)
    result = bench.measure(MODEL, dataset)
    assert result.ok and len(result.processes) == 1
    (first,) = result.processes
    assert first.durations == pytest.approx(result.durations, rel=1e-5) and first.crowded == result.crowded
    assert len(first.reference) == len(first.reference_copy) == 2
    assert all(0 < copy < whole for copy, whole in zip(first.reference_copy, first.reference, strict=True))
    before, stages = set(shapes), []
    shapes.clear()
    second = bench.time(result, dataset, lambda stage, done, total: stages.append(stage))
    assert isinstance(second, TimingProcess) and second.started > first.started
    assert set(shapes) <= before and not {"embedding", "scoring"} & set(stages)
    assert len(second.durations) == len(second.reference) == 2
    if sys.platform == "linux":
        assert first.pinned.images == second.pinned.images == 4
        assert len(second.pinned.durations) == len(second.pinned.reference) >= 2
        assert {threads for shape, threads, _ in shapes} >= {1}


def test_a_quick_look_and_a_machine_without_pinning_time_all_threads_only(bench, dataset, monkeypatch):
    quick = bench.measure(MODEL, dataset, processes=1)
    assert quick.processes[0].pinned is None and quick.processes[0].durations
    assert bench.time(quick, dataset).pinned is None
    monkeypatch.setattr(pinned.sys, "platform", "darwin")
    result = bench.measure(MODEL, dataset)
    assert result.ok and result.processes[0].pinned is None


def test_in_a_child_and_what_fails_there(bench, dataset, tmp_path):
    child = Bench(SETTINGS, cache=tmp_path, timeout_s=100)
    result = child.measure(MODEL, dataset)
    assert isinstance(child.time(result, dataset), TimingProcess)
    late = child.time(result, dataset, limit_s=0.0)
    assert (late.status, late.model) == ("timeout", MODEL)
    (tmp_path / "empty").mkdir()
    gone = dataclasses.replace(SETTINGS, weights=str(tmp_path / "empty"))
    assert Bench(gone, cache=tmp_path).time(result, dataset).status == "no-weights"


def test_a_failure_gives_a_result_with_its_reason(bench, dataset, monkeypatch):
    result = bench.measure(MODEL, dataset, processes=1)

    def break_down(*arguments, **options):
        raise RuntimeError("the fan fell off")

    monkeypatch.setattr(timing_process, "time_forward", break_down)
    failed = bench.time(result, dataset)
    assert failed.status == "error" and "the fan fell off" in failed.reason


def test_workers_take_turns_on_a_device_in_every_timed_round_and_none_collects_garbage(bench, dataset, monkeypatch):
    held, rounds = [], []

    @contextlib.contextmanager
    def lock(device):
        held.append(device)
        yield
        held.pop()

    clock = timing.host_seconds

    def timed(embed, batch):
        rounds.append((bool(held), gc.isenabled()))
        return clock(embed, batch)

    monkeypatch.setattr(measure, "device_lock", lock)
    monkeypatch.setattr(timing_process, "device_lock", lock)
    monkeypatch.setattr(timing, "host_seconds", timed)
    result = bench.measure(MODEL, dataset, latency=True)
    first = len(rounds)
    assert result.ok and isinstance(bench.time(result, dataset), TimingProcess)
    assert 2 <= first < len(rounds)
    assert all(locked for locked, _ in rounds)
    assert sum(not collecting for _, collecting in rounds) >= 2 * SETTINGS.rounds  # the rest are warm-ups
    assert gc.isenabled()
