"""The fall of speed from replicate processes, on simulated noise, and the machine that changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import synthetic_runs as made
from scipy import stats

from embedcore.compare.comparison import compare
from embedcore.compare.speed import Replicates, falls, pooled_noise, shift_of, smallest_seen

PRIOR = 0.008
CLASSES = np.repeat(np.arange(20), 5)


def cases(rng, models, rise=0.0, sd=0.008, processes=2, tails=False):
    """Two sides of each model; with `tails` one process in ten is disturbed by up to 40 %."""
    logs = rng.normal(0, sd, (models, 2, processes))
    if tails:
        logs += (rng.random(logs.shape) < 0.1) * rng.uniform(0, 0.4, logs.shape)
    logs[:, 1] += np.broadcast_to(rise, (models,))[:, None]
    return [Replicates(*map(list, case)) for case in logs]


def test_intervals_contain_the_change_as_often_as_they_say():
    rng = np.random.default_rng(0)
    contained = [
        fall.low <= 0.05 <= fall.high
        for models in (3, 10, 100)
        for _ in range(600 // models)
        for fall in falls(cases(rng, models, -math.log(0.95)), PRIOR, models=models)[0]
    ]
    assert 0.93 < np.mean(contained) < 0.99


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize("models", [1, 10, 200])
def test_no_change_is_hardly_ever_a_sure_fall(models, tails):
    rng = np.random.default_rng(1)
    alarms = sum(
        any(fall.sure > 0.05 for fall in falls(cases(rng, models, tails=tails), PRIOR, models=models)[0])
        for _ in range(400 // models + 20)
    )
    assert alarms <= 1


def test_the_p_value_is_that_of_students_test_when_the_pool_is_the_model_itself():
    """With equal scatter everywhere, shrinking the variance changes nothing but the degrees of freedom."""
    sides = [Replicates([0.0, 0.02], [0.05, 0.07])] * 50
    (fall, *_), noise = falls(sides, 0.02 / math.sqrt(2), models=50)
    assert noise.sd == pytest.approx(0.02 / math.sqrt(2)) and noise.freedom == 100
    t = 0.05 / noise.sd
    assert fall.p == pytest.approx(2 * stats.t.sf(t, 10))
    assert fall.high == pytest.approx(1 - math.exp(-0.05 - noise.sd * stats.t.ppf(0.975, 10)))


def test_drift_between_the_sessions_is_in_the_interval_where_it_is_known():
    """The processes of a session share it, so their scatter cannot show it."""
    rng = np.random.default_rng(5)
    contained: dict[float, list[bool]] = {0.0: [], 0.03: []}
    for _ in range(300):
        common = rng.normal(0, 0.03, (2, 1))
        sides = [Replicates(*(common + rng.normal(0, 0.02, (2, 2))).tolist()) for _ in range(5)]
        for drift, found in contained.items():
            found += [fall.low <= 0 <= fall.high for fall in falls(sides, 0.02, models=5, drift=drift)[0]]
    assert np.mean(contained[0.0]) < 0.8
    assert np.mean(contained[0.03]) > 0.94


def test_one_disturbed_process_decides_nothing():
    """Neither for its own model nor, by the pooled noise, for the others."""
    quiet = cases(np.random.default_rng(2), 20)
    disturbed = Replicates([0.0, 0.001], [0.0, 0.5])
    (own, *others), noise = falls([disturbed, *quiet], PRIOR, models=21)
    assert own.sure < 0 < own.high and own.low < 0.05 < own.high
    assert noise.sd < 0.012 and all(fall.high < 0.08 for fall in others)
    assert pooled_noise([Replicates([0.0, 0.0], [0.0, 0.0])], PRIOR) == (0.0, 2)


def test_the_smallest_fall_that_would_be_certain_is_certain():
    rng = np.random.default_rng(3)
    sides = cases(rng, 10)
    measured = falls(sides, PRIOR, models=10)[0]
    for place, fall in enumerate(measured):
        seen = smallest_seen(fall.fall, fall.sure, 0.05)
        by = math.log1p(-fall.fall) - math.log1p(-seen)
        shifted = [*sides]
        shifted[place] = Replicates(sides[place].base, [value + by for value in sides[place].new])
        assert falls(shifted, PRIOR, models=10)[0][place].sure == pytest.approx(0.05)


def test_a_shift_of_two_sessions_has_the_error_of_its_medians():
    rng = np.random.default_rng(4)
    shifts = [shift_of(rng.normal(0, 0.01, 40), rng.normal(0.03, 0.01, 40)) for _ in range(300)]
    assert np.mean([shift.shift for shift in shifts]) == pytest.approx(0.03, abs=0.001)
    assert np.std([shift.shift for shift in shifts]) == pytest.approx(np.mean([s.error for s in shifts]), rel=0.15)


def runs(base=None, new=None, models=6, machine=made.MACHINE, **changes):
    """Two runs of several models: `base` and `new` are arguments of `processes`."""
    found = []
    for number, arguments in enumerate((base or {}, new or {})):
        infos = []
        for model in range(models):
            name = f"net_{model}.tag"
            timed = made.processes(
                [arguments.get("seconds", 1.0)], **{"seed": [number, model], **arguments_of(arguments)}
            )
            infos.append(made.result(name, CLASSES, made.hits_of(name, CLASSES, 0.6), processes=timed, **changes))
        found.append(made.as_run(made.saved(infos, CLASSES, machine=(made.MACHINE, machine)[number])))
    return found


def arguments_of(arguments):
    return {name: value for name, value in arguments.items() if name != "seconds"}


def speeds(comparison):
    return [change.change for model in comparison.models for change in model.changes if change.what == "images_per_s"]


def test_a_machine_that_is_slower_as_a_whole_is_corrected():
    comparison = compare(*runs(new={"seconds": 1.2, "product": 1.2, "copy": 1.2}))
    assert comparison.speeds.machine == "the machine is 17 % slower; speeds are corrected for it"
    assert speeds(comparison) == pytest.approx([0.0] * 6, abs=0.02)
    slower = compare(*runs(new={"seconds": 1.2 * 1.2, "product": 1.2, "copy": 1.2}))
    assert speeds(slower) == pytest.approx([1 - 1 / 1.2] * 6, abs=0.02)


def test_a_machine_that_changed_in_part_leaves_every_speed_undecided():
    comparison = compare(*runs(new={"seconds": 1.5, "product": 1 / 0.88, "copy": 0.99}))
    said = "the machine changed: matrix products 12 % slower, copies 1 % faster"
    assert {model.barriers["images_per_s"] for model in comparison.models} == {said}
    assert comparison.speeds.falls == {}


def test_rounds_are_divided_by_the_product_beside_them_if_that_makes_processes_agree():
    """A neighbour that slows each process by another factor, with the product beside its rounds."""
    sides = []
    for number in range(2):
        infos = []
        for model in range(20):
            factors = np.exp(np.random.default_rng([number, model]).normal(0, 0.1, 2))
            timed = [
                made.processes([factor], 1, seed=[number, model, place], product=factor)[0]
                for place, factor in enumerate(factors)
            ]
            name = f"net_{model}.tag"
            infos.append(made.result(name, CLASSES, made.hits_of(name, CLASSES, 0.6), processes=timed))
        sides.append(made.as_run(made.saved(infos, CLASSES)))
    comparison = compare(*sides)
    (noise,) = comparison.speeds.noise
    assert noise.corrected and noise.noise.sd < 0.02
    assert not compare(*runs()).speeds.noise[0].corrected


def test_on_a_card_the_reference_is_only_valid_with_equal_libraries():
    card = made.MACHINE | {"gpu": "a card", "cuda": "13.0", "driver": "580"}
    pair = runs(new={"product": 1.3, "copy": 1.0}, device="cuda:0", machine=card)
    pair[0] = made.as_run(made.saved([r.extra_info() for r in pair[0].results], CLASSES, machine=card))
    assert "matrix products 23 % slower" in compare(*pair).models[0].barriers["images_per_s"]
    other = made.as_run(made.saved([r.extra_info() for r in pair[1].results], CLASSES, machine=card | {"torch": "3"}))
    comparison = compare(pair[0], other)
    assert comparison.speeds.machine == (
        "a machine that changed would not be noticed: the reference kernel needs the same torch 2.14.1 → 3"
    )
    assert speeds(comparison) == pytest.approx([0.0] * 6, abs=0.02)
    assert comparison.speeds.noise[0].basis == "card"


def test_on_the_processor_the_reference_is_only_valid_with_equal_numpy():
    base, new = runs()
    infos = [result.extra_info() for result in base.results]
    base, new = (
        made.as_run(made.saved(infos, CLASSES, machine=made.MACHINE | {"requirements": [f"numpy=={version}"]}))
        for version in ("2.0.0", "2.1.0")
    )
    assert compare(base, new).speeds.machine.endswith("the reference kernel needs the same numpy 2.0.0 → 2.1.0")
    assert not compare(base, base).speeds.machine


def test_without_pinned_rounds_of_equal_size_all_threads_are_compared():
    base, new = runs()
    assert compare(base, new).speeds.noise[0].basis == "pinned"
    infos = [result.extra_info() for result in new.results]
    infos[0]["processes"][1]["pinned"]["images"] = 2
    comparison = compare(base, made.as_run(made.saved(infos, CLASSES)))
    assert [(noise.basis, noise.models) for noise in comparison.speeds.noise] == [("threads", 1), ("pinned", 5)]


def test_a_model_that_no_longer_uses_all_threads_is_found():
    base, new = runs()
    infos = [result.extra_info() for result in new.results]
    for process in infos[0]["processes"]:
        process["durations"] = [3 * seconds for seconds in process["durations"]]
    comparison = compare(base, made.as_run(made.saved(infos, CLASSES)))
    first, *others = comparison.models
    assert speeds(comparison)[0] == pytest.approx(2 / 3, abs=0.02) and speeds(comparison)[1] == pytest.approx(
        0, abs=0.02
    )
    assert "with one pinned thread the fall is smaller" in first.causes and not any(model.causes for model in others)
