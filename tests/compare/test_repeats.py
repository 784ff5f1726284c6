"""A model that is in a file more than once: every measurement is judged, never silently the last."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Accepted, Limits, parse_limits
from embedcore.compare.verdict import judge

CLASSES = np.repeat(np.arange(100), 5)
MODEL = "vit_tiny.in1k"
OVERALL = parse_limits(DEFAULT)


def info(acc=0.6, **changes):
    return made.result(MODEL, CLASSES, made.hits_of(MODEL, CLASSES, acc), **changes)


def run(*infos, **block):
    return made.as_run(made.saved([*infos], CLASSES, **block))


def regressions(base, new, limits=Limits(OVERALL)):  # noqa: B008 (frozen)
    return {(f.model, f.change.what) for f in judge(compare(base, new), limits).of("regression")}


def test_a_fall_in_the_first_of_two_measurements_fails():
    found = regressions(run(info()), run(info(0.3), info()))
    assert (f"{MODEL} (earlier measurement 1)", "acc") in found
    assert {model for model, _ in found} == {f"{MODEL} (earlier measurement 1)"}
    assert (MODEL, "acc") in regressions(run(info()), run(info(), info(0.3)))


def test_the_first_of_two_measurements_of_the_base_counts():
    found = regressions(run(info(), info(0.3)), run(info(0.3)))
    assert {model for model, _ in found} == {f"{MODEL} (earlier base measurement 1)"}


def test_an_earlier_measurement_that_moved_or_lost_its_status_is_judged():
    moved = info(sketch=made.result("other.model", CLASSES, made.hits_of(MODEL, CLASSES, 0.6))["sketch"])
    assert regressions(run(info()), run(moved, info())) == {(f"{MODEL} (earlier measurement 1)", "drift")}
    failed = {"model": MODEL, "family": "vit", "status": "crashed", "reason": ""}
    assert regressions(run(info()), run(info(), excluded=[failed])) == {(MODEL, "status")}


def test_measurements_that_differ_in_time_only_are_one_case_timed_by_all():
    """As pytest-repeat makes them."""
    processes = [[{"started": float(n), "durations": [1.0 + n]}] for n in range(2)]
    first, second = (info(durations=[n + 1.0] * 3, processes=of) for n, of in enumerate(processes))
    repeated = run(first, second)
    assert repeated.repeats == () and repeated.results[0].durations == (2.0,) * 3
    assert [process.started for process in repeated.results[0].processes] == [0.0, 1.0]
    comparison = compare(run(info()), repeated)
    assert [model.model for model in comparison.models] == [MODEL] and comparison.compared == 1
    other_batch = run(info(processes=processes[0], batch_size=8), second)
    assert [process.started for process in other_batch.results[0].processes] == [1.0]


@pytest.mark.parametrize("limit", [{"acc": 0.9, "acc5": 0.9}, {}])
def test_limits_and_accepted_changes_hold_for_every_measurement(limit):
    base, new = run(info()), run(info(0.3), info())
    if limit:
        assert not regressions(base, new, Limits(OVERALL, [(["vit_tiny*"], [], limit)]))
    else:
        accepted = Accepted(new.repeats[0], "known")
        assert not regressions(base, new, Limits(OVERALL, (), {MODEL: accepted}))


def test_earlier_measurements_do_not_count_as_models():
    comparison = compare(run(info()), run(info(0.3), info()))
    assert comparison.compared == 1
    assert [family.models for family in comparison.families] == [1]
    assert [model.model for model in comparison.models] == [MODEL, f"{MODEL} (earlier measurement 1)"]
    assert {change.what for change in comparison.models[1].changes} == {"acc", "acc5", "hit5", "drift"}
