"""The ratio of interleaved sides: error rates and disturbances, simulated with seeded generators."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from embedcore.ab import schedule
from embedcore.ab.compare_sides import _noise_found
from embedcore.ab.schedule import measure_models
from embedcore.compare.interleaved import LOOKS, NOISE, paired_ratio, ratio_of
from embedcore.compare.statistics import robust_sd
from embedcore.results.result import Result

SD = NOISE / math.sqrt(2)  # of one process


def result(model, seconds):
    return Result.make(
        model, family="f", status="ok", scores={"acc": 0.5, "acc5": 0.5}, batch_size=8, durations=tuple(seconds)
    )


class Simulated:
    """Simulated pairs of processes, normal on the log scale.

    Side B is `slower`; `sd` between processes, `scatter` between rounds; the machine drifts by `walk` per round, which
    both sides see; a share `disturbed` of the processes is slower.
    """

    def __init__(self, seed, *, slower=0.0, sd=SD, scatter=0.0, walk=0.0, disturbed=0.0, rounds=40):
        self.rng = np.random.default_rng(seed)
        self.slower, self.sd, self.scatter, self.walk, self.disturbed = slower, sd, scatter, walk, disturbed
        self.rounds, self.machine, self.processes, self.order = rounds, 0.0, 0, []

    def alone(self, side, model):
        self.processes += 1
        return result(model, [1.0, 1.0, 1.0])

    def interleaved(self, model, number, equal):
        self.order.append((model, number))
        seconds = {"A": [], "B": []}
        process = {side: self.rng.normal(0, self.sd) for side in "AB"}
        process["B"] -= math.log1p(-self.slower)
        for side in "AB":
            self.processes += 1
            if self.rng.random() < self.disturbed:
                process[side] += self.rng.exponential(0.2)
        for _ in range(self.rounds):
            for side in "AB":
                self.machine += self.rng.normal(0, self.walk)
                alone = self.rng.normal(0, self.scatter) + (0.5 if self.rng.random() < self.scatter else 0.0)
                seconds[side].append(math.exp(process[side] + self.machine + alone))
        return {side: result(model, values) for side, values in seconds.items()}


def alarms(runs, models=1, **how):
    found = processes = 0
    for seed in range(runs):
        simulated = Simulated(seed, **how)
        tracks = measure_models([f"m{i}" for i in range(models)], simulated, lambda model: 0.05)
        found += any(track.alarm for track in tracks)
        processes += simulated.processes
    return found, processes / runs / models


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"models": 10},
        {"disturbed": 0.05},
        {"walk": 0.05},
        {"scatter": 0.15},
        {"sd": 2.5 * SD},
        {"sd": 2.5 * SD, "models": 10},
    ],
    ids=str,
)
def test_false_alarms_are_rare(how):
    runs = 300 if "models" not in how else 60
    found, _ = alarms(runs, **how)
    assert found <= (2 if runs == 60 else 3)


@pytest.mark.parametrize("how", [{}, {"disturbed": 0.05}, {"walk": 0.05}, {"scatter": 0.07}, {"sd": 1.5 * SD}], ids=str)
def test_five_percent_slower_is_found(how):
    found, _ = alarms(200, slower=0.05, **how)
    assert found >= 194


def test_few_processes_suffice_if_nothing_is_slower():
    assert alarms(100)[1] <= 10


def test_a_slowdown_far_below_the_limit_is_no_alarm():
    assert alarms(100, slower=0.01)[0] <= 2


def test_one_disturbed_process_is_no_alarm():
    ratio = ratio_of([-0.5, 0.001, -0.001, 0.0], models=1)
    assert not ratio.alarms(0.05)
    assert 0.98 < ratio.ratio < 1


def test_interval_has_its_coverage():
    rng = np.random.default_rng(0)
    inside = [
        ratio.low <= math.exp(-0.03) <= ratio.high
        for pairs in rng.normal(-0.03, 0.013, (500, 8))
        for ratio in [ratio_of(pairs, models=1)]
    ]
    assert 0.93 <= np.mean(inside) <= 0.995


@pytest.mark.parametrize("rounds", [20, 80])
def test_error_of_a_pair_is_the_spread_of_its_log_ratio(rounds):
    rng = np.random.default_rng(0)
    found = np.array([paired_ratio(*np.exp(rng.normal(0, 0.1, (2, rounds)))) for _ in range(2000)])
    assert np.mean(found[:, 1]) == pytest.approx(np.std(found[:, 0]), rel=0.1)


def test_slowdowns_of_both_sides_cancel():
    machine = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.2, 50)))
    ratio, error = paired_ratio(machine, machine / 0.9)
    assert ratio == pytest.approx(math.log(0.9))
    assert error < 1e-12


def test_noise_estimate_is_robust_to_a_few_disturbed_pairs():
    rng = np.random.default_rng(0)
    pairs = [[*rng.normal(0, 0.02, 24), 0.4] for _ in range(20)]
    assert robust_sd(np.concatenate(pairs)) == pytest.approx(0.02, rel=0.15)


def test_drift_of_the_machine_is_noise_in_sequence_but_not_interleaved():
    tracks = measure_models([f"m{i}" for i in range(20)], Simulated(0, sd=0.005, walk=0.01), lambda model: 0.05)
    found = _noise_found(tracks)
    assert 0.004 < found.in_turn < 0.008
    assert found.in_sequence > 0.04


def test_an_unconfirmed_alarm_at_the_end_of_the_budget_does_not_count():
    now = iter(range(1000))
    (track,) = measure_models(
        ["a"], Simulated(0, slower=0.3), lambda model: 0.05, seconds=3, clock=lambda: float(next(now))
    )
    assert track.ratio.alarms(0.05) and not track.alarm
    assert track.why == "slower, but not confirmed by a second set of processes: the budget was used up"


@pytest.mark.parametrize("persists", [True, False])
@pytest.mark.parametrize("begins", LOOKS)
def test_an_alarm_of_any_look_is_confirmed_by_twice_as_many_pairs(begins, persists, monkeypatch):
    """Also one of the last looks; one that does not persist is none."""

    class Ratio:
        def __init__(self, pairs):
            self.pairs = len(pairs)

        def alarms(self, limit):
            return self.pairs >= begins and (persists or self.pairs < 2 * begins)

        def settled(self, limit):
            return self.pairs > begins

    monkeypatch.setattr(schedule, "ratio_of", lambda pairs, **_: Ratio(pairs))
    (track,) = measure_models(["a"], Simulated(0), lambda model: 0.05)
    assert (track.alarm, len(track.pairs), track.settled) == (persists, 2 * begins, True)


def test_budget_and_failures_end_a_model_with_a_reason():
    now = iter(range(1000))
    tracks = measure_models(
        ["a", "b", "c"], Simulated(0), lambda model: 0.05, seconds=6, clock=lambda: float(next(now))
    )
    assert [track.why for track in tracks][-1] == "the budget was used up"
    assert tracks[0].ratio is not None

    class Fails(Simulated):
        def alone(self, side, model):
            return Result.make(model, family="f", status="oom" if side == "B" else "error", reason=f"no {side}")

    (track,) = measure_models(["a"], Fails(0), lambda model: 0.05)
    assert track.ratio is None
    assert track.why == "no A; no B"

    class FailsLater(Simulated):
        def interleaved(self, model, number, equal):
            lost = Result.make(model, family="f", status="crashed", reason="lost")
            return {**super().interleaved(model, number, equal), "B": lost}

    (track,) = measure_models(["a"], FailsLater(0), lambda model: 0.05)
    assert (track.ratio, track.why) == (None, "side B: lost")


def test_models_are_measured_in_turn_so_that_they_share_the_servers_of_a_pair():
    simulated = Simulated(0)
    measure_models(["a", "b", "c"], simulated, lambda model: 0.05)
    assert simulated.order[:6] == [(model, number) for number in (0, 1) for model in "abc"]


def test_both_sides_use_the_smaller_batch():
    """The batch of the side with less memory; a smaller one if both processes together lack memory for it."""
    asked = []

    class Small(Simulated):
        def alone(self, side, model):
            return msgspec.structs.replace(super().alone(side, model), batch_size=8 if side == "A" else 4)

        def interleaved(self, model, number, equal):
            asked.append((number, equal["batch_size"]))
            size = 2 if len(asked) > 1 else 4
            return {
                side: msgspec.structs.replace(result, batch_size=size)
                for side, result in super().interleaved(model, number, equal).items()
            }

    (track,) = measure_models(["a"], Small(0), lambda model: 0.05)
    assert track.ratio is not None
    assert asked == [(0, 4), (1, 4), *((number, 2) for number in range(LOOKS[0]))]
