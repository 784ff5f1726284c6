from __future__ import annotations

import itertools

import pytest
import torch

from embedcore.embed import timing
from embedcore.embed.reference import ReferenceSeconds
from embedcore.embed.timing import time_forward, warm_up


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [
        ([1.0, 1.0], 2),
        ([1.0, 0.96], 2),  # the 5 % are of the longer one
        ([9.0, 1.0, 1.04], 3),
        ([9.0, 5.0, 3.0, 2.0, 2.2, 2.1], 6),
        ([1.0, 2.0] * 10, 20),
        ([1.0, 2.0] * 9 + [1.0, 1.0], 20),
        ([0.0, 0.0], 2),
    ],
)
def test_warm_up_ends_when_two_successive_rounds_agree(monkeypatch, seconds, rounds):
    monkeypatch.setattr(timing, "MOST_WARMUPS", 20)  # other tests make it shorter
    clock = iter(seconds)
    assert warm_up(lambda: next(clock)) == rounds
    assert next(clock, None) is None


def test_rounds_are_timed_one_by_one_after_the_warm_up(monkeypatch):
    ticks = itertools.accumulate([0, *[v for d in (5, 1, 1, 2, 3, 4) for v in (d, 100)]])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    calls = []
    reported = []
    timed = time_forward(
        calls.append, torch.zeros(2, 3, 4, 4), 3, progress=lambda *call: reported.append((len(calls), *call))
    )
    assert (timed.durations, timed.warmups, timed.reference) == ([2, 3, 4], 3, [])
    assert reported == [(0, 0, 3), (4, 1, 3), (5, 2, 3), (6, 3, 3)]


def test_the_reference_kernel_runs_after_each_timed_round():
    calls = []

    def kernel():
        calls.append("kernel")
        return ReferenceSeconds(float(len(calls)), 0.5)

    timed = time_forward(lambda batch: calls.append("round"), torch.zeros(1, 3, 2, 2), 2, reference=kernel)
    assert calls[-4:] == ["round", "kernel"] * 2 and calls.count("kernel") == 2
    assert [seconds.whole for seconds in timed.reference] == [len(calls) - 2, len(calls)]
