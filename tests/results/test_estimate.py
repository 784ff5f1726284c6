from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedcore
from embedcore.results.estimate import (
    costs_left,
    estimate_range,
    estimate_seconds,
    fit_pace,
    rough_range,
)
from embedcore.results.result import Result

costs = st.lists(st.tuples(st.floats(0.01, 500), st.floats(0.1, 5000)), min_size=1, max_size=30)


@given(costs)
def test_no_part_is_negative_and_the_range_contains_the_estimate(measured: list[tuple[float, float]]) -> None:
    pace = fit_pace(measured)
    assert pace is not None and pace.fixed > 0 and pace.per_work > 0
    gmacs = [cost for cost, _ in measured]
    low, high = estimate_range(measured, gmacs) or (0, 0)
    assert 0 < low < (estimate_seconds(measured, gmacs) or 0) < high


@given(st.lists(st.tuples(st.floats(0.01, 500), st.floats(0.1, 5000)), min_size=1, max_size=8))
def test_the_pace_reproduces_the_total_of_its_cases(measured: list[tuple[float, float]]) -> None:
    total = sum(seconds for _, seconds in measured)
    assert estimate_seconds(measured, [cost for cost, _ in measured]) == pytest.approx(total)


def test_cases_skipped_while_the_hub_is_unreachable_cost_nothing() -> None:
    left, to_fetch = [("here.a", 1.0), ("gone.a", 2.0), ("gone.b", None), ("here.b", 4.0)], {"gone.a", "gone.b"}
    here = Result.make("here.a", family="vit", status="ok", scores={"acc": 0.5, "acc5": 0.5})
    lost = Result.make("gone.a", family="vit", status="no-weights", unreachable=True)
    assert costs_left(left, [], to_fetch) == [1.0, 2.0, None, 4.0]
    assert costs_left(left[1:], [here], to_fetch) == [2.0, None, 4.0]
    assert costs_left(left[2:], [lost, here], to_fetch) == [4.0]
    back = Result.make("gone.b", family="vit", status="ok", scores={"acc": 0.5, "acc5": 0.5})
    assert costs_left([left[3], ("gone.c", 3.0)], [lost, back], {*to_fetch, "gone.c"}) == [4.0, 3.0]


def test_a_rough_range_grows_with_the_work_and_falls_with_the_speed() -> None:
    few, many = rough_range(100.0, [4.0, None], 1000, 1), rough_range(100.0, [4.0, None], 2000, 2)
    assert few[0] < few[1] and few[0] < many[0] and few[1] < many[1]
    assert rough_range(200.0, [4.0], 1000, 1)[1] < rough_range(100.0, [4.0], 1000, 1)[1]
    assert rough_range(100.0, [], 1000, 1) == (0, 0)


def test_unknown_costs_count_as_typical_ones() -> None:
    measured = [(1.0, 12.0), (3.0, 16.0)]
    assert estimate_seconds(measured, [1.0, 3.0]) == pytest.approx(28.0)
    assert estimate_seconds(measured, [1.0, 3.0, None]) == pytest.approx(42.0)
    assert estimate_range(measured, [None]) == pytest.approx(estimate_range(measured, [2.5]), rel=0.1)
    assert estimate_seconds([], [1.0]) is estimate_range([], [1.0]) is None
    assert estimate_seconds(measured, []) == 0
    assert estimate_range(measured, []) == (0, 0)


Sweep = list[tuple[float, float]]

with (Path(embedcore.__file__).parent / "zoo" / "sizes.csv").open() as _sizes:
    GMACS = [float(row["gmacs"]) for row in csv.DictReader(_sizes)]


def made_up(seed: int, cases: int, trend: float) -> Sweep:
    """GMACs and seconds of a sweep over architectures of timm, the cheapest first, on a machine of some speed.

    Architectures reach half to twice of it; with ``trend`` small ones are slower: by 2 to its power for half the size.
    """
    random = np.random.default_rng(seed)
    gmacs = np.sort(random.choice(GMACS, cases, replace=False))
    speed = 60 * math.exp(random.normal(0, 0.8))
    reached = np.minimum(1.0, (gmacs / 20) ** trend) * np.exp(random.normal(0, 0.5, cases))
    return list(zip(gmacs.tolist(), (1 + 1400 * gmacs / (speed * reached)).tolist(), strict=True))


def course(sweep: Sweep, estimate: Callable[[Sweep, list[float]], float | None]) -> list[float]:
    """Log of the estimated over the actual duration of the whole sweep, after each case."""
    costs, total = [cost for cost, _ in sweep], sum(seconds for _, seconds in sweep)
    errors = []
    for done in range(1, len(sweep)):
        left = estimate(sweep[:done], costs[done:]) or math.nan
        errors.append(math.log((sum(seconds for _, seconds in sweep[:done]) + left) / total))
    return errors


def least_squares(measured: Sweep, gmacs: list[float]) -> float:
    """The estimate of version 0.1.0."""
    x, y = np.array(measured).T
    slope, fixed = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, y.mean())
    if slope <= 0:
        slope, fixed = 0.0, y.mean()
    elif fixed < 0:
        slope, fixed = (x * y).sum() / (x * x).sum(), 0.0
    return float(fixed * len(gmacs) + slope * sum(gmacs))


SWEEPS = [made_up(seed, cases, trend) for seed in range(6) for cases in (8, 60, 200) for trend in (0.0, 0.15, 0.25)]


with Path(__file__).with_name("recorded_sweeps.csv").open() as _recorded:
    # Tags of timm 1.0.31 below 14 or 30 GMACs at regular intervals, with random weights, on two idle cores.
    _rows = [(row["sweep"], float(row["gmacs"]), float(row["seconds"])) for row in csv.DictReader(_recorded)]
RECORDED = [[(cost, seconds) for of, cost, seconds in _rows if of == sweep] for sweep in "123"]


def holds(sweeps: list[Sweep]) -> tuple[float, float]:
    """Return the share of ranges that contained the actual duration of the rest, and the median ratio of their ends."""
    held, widths = [], []
    for sweep in sweeps:
        for done in range(1, len(sweep)):
            low, high = estimate_range(sweep[:done], [cost for cost, _ in sweep[done:]]) or (0, 0)
            held.append(low <= sum(seconds for _, seconds in sweep[done:]) <= high)
            widths.append(high / low)
    return float(np.mean(held)), float(np.median(widths))


def test_estimates_of_recorded_sweeps_were_good() -> None:
    share, width = holds(RECORDED)
    assert share > 0.7 and width < 2
    for sweep in RECORDED:
        ours, theirs = course(sweep, estimate_seconds), course(sweep, least_squares)
        assert np.abs(ours).mean() < 0.8 * np.abs(theirs).mean()
        jumps, before = (np.exp(np.abs(np.diff(errors)).max()) for errors in (ours, theirs))
        assert jumps < 1.7 and before > 40


def test_estimates_jump_less_than_least_squares_and_are_no_worse() -> None:
    ours, theirs = ([course(sweep, way) for sweep in SWEEPS] for way in (estimate_seconds, least_squares))
    jumps, before = (np.concatenate([np.abs(np.diff(errors)) for errors in way]) for way in (ours, theirs))
    assert jumps.mean() < 0.6 * before.mean()
    assert np.exp(jumps.max()) < 6 and np.exp(before.max()) > 100
    errors, earlier = (np.abs(np.concatenate(way)).mean() for way in (ours, theirs))
    assert errors < earlier


def test_about_three_ranges_in_four_contain_the_actual_duration() -> None:
    share, width = holds(SWEEPS)
    assert 0.65 < share < 0.98 and width < 4
