from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.plugin.replay import ReplayClock


class Benchmark:
    """Times rounds as pytest-benchmark's pedantic mode does: once around all iterations, then one more call."""

    def __init__(self, timer):
        self.timer, self.rounds = timer, []

    def pedantic(self, target, rounds, iterations):
        for _ in range(rounds):
            begin = self.timer()
            for _ in range(iterations):
                target()
            self.rounds.append(self.timer() - begin)
        if iterations > 1:
            target()


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12), st.integers(1, 300))
def test_replayed_rounds_equal_the_measured_ones(durations, images):
    clock = ReplayClock()
    benchmark = Benchmark(clock.now)
    clock.replay(benchmark, durations, images)
    assert benchmark.rounds == pytest.approx(durations, rel=1e-6, abs=1e-9)
