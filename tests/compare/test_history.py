"""Series over saved runs: which results are joined, and where steps are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import synthetic_runs as made
from hypothesis import given
from hypothesis import strategies as st

from embedcore.compare.history import history
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.series import ALL
from embedcore.compare.step import find_steps
from embedcore.errors import UsageError
from embedcore.results.verdicts import pack_sketch

CLASSES = np.repeat(np.arange(100), 10)
LIMITS = Limits(parse_limits(DEFAULT))
MODEL = "vit_tiny.in1k"
HITS = made.hits_of(MODEL, CLASSES, 0.6)


def info(speed=100.0, model=MODEL, hits=HITS, **changes):
    return made.result(model, CLASSES, hits, images_per_s={"forward": speed}, **{"processes": []} | changes)


def run(day, *results, commit="c", **block):
    data = made.saved(list(results), CLASSES, **block)
    data |= {"datetime": f"2026-11-{day:02d}T12:00:00+00:00", "commit_info": {"id": commit}}
    return made.as_run(data, f"{day:02d}.json")


def runs_of(speeds, **changes):
    return [run(day, info(speed, **changes)) for day, speed in enumerate(speeds, start=1)]


def steps(runs, limits=LIMITS, *, families=False):
    found = history(runs, limits)
    return [step for step in found.steps if families or not step.series.of_family]


def test_speeds_of_a_busy_machine_are_in_no_series():
    slow = [run(day, info(30.0, crowded=0.5)) for day in (4, 5, 6)]
    found = history([*runs_of([100.0, 100.0, 100.0]), *slow], LIMITS)
    assert [step.series.what for step in found.steps] == []
    (speeds,) = (s for s in found.series if s.what == "images_per_s" and not s.of_family)
    assert [point.value for point in speeds.points] == [100.0] * 3


# Steps in a series.


def noisy(seed, count, sd=0.014):
    return np.random.default_rng(seed).normal(0, sd, count)


def test_a_known_step_is_found_where_it_is():
    for place in range(1, 20):
        values = noisy(place, 20) + np.where(np.arange(20) < place, 0, -0.12)
        assert find_steps(values.tolist(), 0.05, 0.014) == [place]


def test_noise_alone_makes_no_step():
    found = [find_steps(noisy(seed, 20).tolist(), 0.05, 0.014) for seed in range(1000)]
    assert sum(map(bool, found)) <= 2  # of 19,000 places


@pytest.mark.parametrize("place", range(1, 18))
def test_a_single_outlier_is_a_step_at_the_end_only(place):
    values = [0.0] * 20
    values[place] = -1.0
    assert find_steps(values, 0.05, 0.014) == []
    values[place], values[-1] = 0.0, -1.0
    assert find_steps(values, 0.05, 0.014) == [19]


def test_two_steps_are_both_found():
    assert find_steps([0.0] * 4 + [1.0] * 4 + [3.0] * 4, 0.05, 0.014) == [4, 8]
    assert find_steps([0.0] * 4 + [1.0] * 4 + [0.0] * 4, 0.05, 0.014) == [4, 8]


@given(st.lists(st.floats(-5, 5), max_size=25), st.floats(0.01, 1), st.floats(0, 0.5))
def test_steps_are_ordered_and_symmetric(values, limit, spread):
    found = find_steps(values, limit, spread)
    assert found == sorted(set(found)) and all(0 < place < len(values) for place in found)
    assert find_steps([-value for value in values], limit, spread) == found


# Histories.


def test_a_slower_run_is_named_with_the_versions_that_changed():
    runs = [
        run(day, info(100.0 if day < 5 else 88.0), commit="old" if day < 5 else "new",
            machine=made.MACHINE | {"torch": "2.14.1" if day < 5 else "2.15.0", "driver": "560" if day < 5 else "570"})
        for day in range(1, 9)
    ]  # fmt: skip
    found = history(reversed(runs), LIMITS)
    family, step = sorted(found.steps, key=lambda step: not step.series.of_family)
    assert family.series.name == "vit"
    assert (step.series.name, step.series.what, step.before, step.run, step.runs_after) == (
        MODEL, "images_per_s", 3, 4, 4,
    )  # fmt: skip
    assert (step.change, step.worse) == (pytest.approx(-0.12), True)
    assert found.facts(step) == ["commit old → new", "torch 2.14.1 → 2.15.0", "driver 560 → 570"]


def test_a_constant_series_has_no_step():
    speeds = 100 * np.exp(noisy(3, 20, 0.01))
    assert steps(runs_of(speeds), families=True) == []


def test_a_step_in_the_newest_run_has_one_run_after():
    (step,) = steps(runs_of([100] * 6 + [85]))
    assert (step.run, step.runs_after) == (6, 1)


def test_a_noisy_series_needs_a_larger_step():
    speeds = 100 * np.exp(noisy(1, 12, 0.08))
    assert steps(runs_of(speeds)) == []
    speeds[6:] *= 0.5
    assert [step.run for step in steps(runs_of(speeds))] == [6]


@pytest.mark.parametrize(("device", "after", "found"), [("cpu", 700.0, 0), ("cpu", 1100.0, 1), ("cuda:0", 560.0, 1)])
def test_memory_makes_a_step_where_compare_counts_it(device, after, found):
    of_models = steps(
        [run(day, info(peak_memory_mb=500.0 if day < 4 else after, device=device)) for day in range(1, 8)]
    )
    assert [(step.series.what, step.run) for step in of_models] == [("memory", 3)] * found


# Trends.


def trends(runs, limits=LIMITS):
    found = history(runs, limits)
    assert found.steps == ()
    return [trend for trend in found.trends if not trend.series.of_family]


@pytest.mark.parametrize(("rate", "sd"), [(-0.01, 0.01), (-0.045, 0.01), (-0.3, 0.01), (-0.3, 0.0), (0.05, 0.01)])
def test_a_creep_of_speed_is_a_trend_with_the_versions_that_changed(rate, sd):
    speeds = 184 * (1 + rate) ** np.arange(15) * np.exp(noisy(0, 15, sd))
    runs = [
        run(day, info(speed), machine=made.MACHINE | {"torch": "2.14" if day < 8 else "2.15"})
        for day, speed in enumerate(speeds, start=1)
    ]
    found = history(runs, LIMITS)
    assert found.steps == ()
    family, trend = found.trends
    assert family.series.of_family and family.change == pytest.approx(trend.change)
    assert trend.runs >= 12 and trend.rate == pytest.approx(rate, rel=0.2)
    assert trend.worse == (rate < 0)
    assert found.facts(trend) == ["torch 2.14 → 2.15"]


def test_a_creep_that_single_models_hide_is_found_in_all_of_them():
    rng = np.random.default_rng(4)
    runs = [
        run(day, *(
            info(100 * 0.99**day * math.exp(rng.normal(0, 0.06)), model=f"{family}_{n}.a")
            for family in ("vit", "resnet", "convnext") for n in range(8)
        ))
        for day in range(1, 16)
    ]  # fmt: skip
    found = history(runs, LIMITS).trends
    assert sum(not trend.series.of_family for trend in found) < 12  # of 24
    (trend,) = (trend for trend in found if trend.series.name == ALL)
    assert trend.rate == pytest.approx(-0.01, abs=0.004)


def test_a_step_during_a_creep_is_found_with_it():
    speeds = 200 * 0.98 ** np.arange(20) * np.where(np.arange(20) < 10, 1.0, 0.7) * np.exp(noisy(2, 20, 0.005))
    found = history(runs_of(speeds), LIMITS)
    steps_found = [step for step in found.steps if not step.series.of_family]
    assert [(step.run, step.change) for step in steps_found] == [(10, pytest.approx(-0.3, abs=0.05))]
    assert all(trend.rate == pytest.approx(-0.02, abs=0.01) for trend in found.trends) and found.trends


@pytest.mark.parametrize(("device", "rate", "found"), [("cpu", 1.09, 1), ("cpu", 1.03, 0), ("cuda:0", 1.03, 1)])
def test_memory_makes_a_trend_where_compare_counts_it(device, rate, found):
    runs = [run(day, info(peak_memory_mb=500 * rate**day, device=device)) for day in range(1, 16)]
    assert [(trend.series.what, trend.runs) for trend in trends(runs)] == [("memory", 15)] * found


def test_accuracy_that_falls_a_little_in_each_run_is_a_trend():
    rng = np.random.default_rng(0)
    order = rng.permutation(np.flatnonzero(HITS))
    runs = []
    for day in range(1, 16):
        hits = HITS.copy()
        hits[order[: 10 * day]] = 0
        runs.append(run(day, info(hits=hits)))
    (trend,) = trends(runs)
    assert (trend.series.what, trend.runs) == ("acc", 15)
    assert trend.change == pytest.approx(trend.new - trend.base) and trend.change < -0.05
    assert trend.rate == pytest.approx(trend.change / 14)
    assert trends(runs, Limits(parse_limits("acc:off"))) == []


def test_noise_of_models_makes_no_trend():
    rng = np.random.default_rng(1)
    for _ in range(2):
        models = [f"vit_{n}.a" for n in range(20)]
        runs = [
            run(day, *(info(100 * math.exp(rng.normal(0, 0.03)), model=model) for model in models))
            for day in range(1, 16)
        ]
        assert history(runs, LIMITS).trends == ()


# Pinned speeds.


def timed(seconds, *, pinned=None, images=4, crowded=0.0, processes=2):
    core = {"core": 0, "images": images, "durations": [pinned] * 3, "crowded": crowded}
    return [
        {"started": 1.0 + n, "durations": [seconds] * 3, **({"pinned": core} if pinned else {})}
        for n in range(processes)
    ]


def speeds_of(runs):
    (series,) = (s for s in history(runs, LIMITS).series if s.what == "images_per_s" and not s.of_family)
    return series


def test_the_speed_of_a_pinned_thread_is_the_series_if_all_runs_have_it():
    runs = [run(day, info(100.0 + 40 * (day % 2), processes=timed(0.1, pinned=0.5))) for day in range(1, 5)]
    assert speeds_of(runs).pinned
    assert [point.value for point in speeds_of(runs).points] == [8.0] * 4
    for other in (timed(0.1), timed(0.1, pinned=1.0, images=8), []):
        series = speeds_of([*runs, run(9, info(100.0, processes=other))])
        assert not series.pinned and [point.value for point in series.points] == [140.0, 100.0, 140.0, 100.0, 100.0]


def test_a_pinned_thread_that_waited_for_its_core_is_left_out():
    crowded = [run(day, info(processes=timed(0.1, pinned=9.0, crowded=0.5))) for day in (3, 4)]
    runs = [run(day, info(processes=timed(0.1, pinned=0.5))) for day in (1, 2)]
    assert [point.run for point in speeds_of([*runs, *crowded]).points] == [0, 1]


@pytest.mark.parametrize(("processes", "weak"), [(1, True), (2, False)])
def test_a_step_in_a_newest_run_of_one_process_is_weak(processes, weak):
    runs = [run(day, info(100.0 if day < 8 else 70.0, processes=timed(0.1))) for day in range(1, 8)]
    runs.append(run(8, info(70.0, processes=timed(0.1, processes=processes))))
    (step,) = steps(runs)
    assert step.weak == weak


@pytest.mark.parametrize("value", [0, -1.0, 0.0])
def test_speeds_and_memory_of_0_or_below_are_left_out(value):
    runs = [*runs_of([100.0, 100.0]), run(3, info(value, peak_memory_mb=value) | {"durations": [value]})]
    found = history(runs, LIMITS)
    assert found.steps == () and {len(s.points) for s in found.series if s.what in ("images_per_s", "memory")} == {2}


def test_accuracy_makes_a_step_by_the_paired_test():
    worse = np.where(CLASSES < 10, 0, HITS).astype(np.uint8)
    found = steps([run(day, info(hits=HITS if day < 3 else worse)) for day in range(1, 6)])
    (step,) = [step for step in found if step.series.what == "acc"]
    assert (step.before, step.run, step.runs_after) == (1, 2, 3)
    assert step.change == pytest.approx(-0.06, abs=0.02)


def test_an_insignificant_change_of_accuracy_is_no_step():
    other = made.hits_of(MODEL, CLASSES, 0.6, seed=1)  # other neighbours, as good as before
    found = steps([run(1, info()), run(2, info(hits=other))], Limits(parse_limits("acc:0pt")))
    assert found == []


def test_drift_makes_a_step_with_its_cause():
    sketch = np.random.default_rng(0).standard_normal((8, 64)) / 8
    before, after = (pack_sketch(values) for values in (sketch, sketch * 1.05))
    crop = {"crop_pct": 0.875}, {"crop_pct": 1.0}
    runs = [run(day, info(sketch=before, transform=crop[0])) for day in (1, 2)]
    runs += [run(day, info(sketch=after, transform=crop[1])) for day in (3, 4)]
    (step,) = steps(runs)
    assert (step.series.what, step.run, step.change, step.runs_after) == ("drift", 2, pytest.approx(0.05), 2)
    assert step.causes == ("crop 0.875 → 1.0",)
    assert [point.value for point in step.series.points] == pytest.approx([0, 0.05, 0], abs=1e-6)
    runs[2] = run(3, info(sketch=after, transform=crop[1]), info(model="vit_base.in1k"))
    runs[3] = run(4, info(sketch=after, transform=crop[1]), info(model="vit_base.in1k"))
    (family,) = [s for s in history(runs, LIMITS).series if s.what == "drift" and s.of_family]
    assert family.points == ((1, 0.0), (2, pytest.approx(0.05)), (3, 0.0))


def test_embeddings_of_another_width_are_a_step_of_drift():
    other = pack_sketch(np.ones((8, 64)))
    (step,) = steps([run(1, info()), run(2, info(dim=64, sketch=other))])
    assert math.isinf(step.change)


def test_only_comparable_results_are_joined():
    other = made.MACHINE | {"gpu": "H100"}
    runs = [
        run(day, info(100.0 if day % 2 else 900.0), machine=made.MACHINE if day % 2 else other) for day in range(1, 9)
    ]
    found = history(runs, LIMITS)
    assert found.steps == ()
    speeds = [s for s in found.series if s.what == "images_per_s"]
    assert sorted((s.of_family, [p.value for p in s.points]) for s in speeds) == [
        (of_family, pytest.approx([value] * 4)) for of_family in (False, True) for value in (100.0, 900.0)
    ]
    (accuracy,) = [s for s in found.series if s.what == "acc" and not s.of_family]
    assert len(accuracy.points) == 8  # scores do not depend on the machine


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"precision": "bf16"}, {"batch_decayed": True}])
def test_another_batch_or_precision_starts_a_new_series(change):
    runs = [run(1, info()), run(2, info()), run(3, info(50.0, **change)), run(4, info(50.0, **change))]
    lengths = [len(s.points) for s in history(runs, LIMITS).series if s.what == "images_per_s" and not s.of_family]
    assert lengths == [2, 2]
    assert steps(runs) == []


def test_a_run_merged_from_unlike_machines_continues_the_series_of_each():
    def merged(day, here, there):
        machines = "; ".join(sorted((here, there)))
        of = info(processor=here), info(50.0, model="vit_base.a", processor=there)
        return run(day, *of, machine=made.MACHINE | {"processor": machines})

    runs = [merged(1, "A", "B"), merged(2, "A", "B"), merged(3, "B", "A")]
    runs.append(run(4, info(), machine=made.MACHINE | {"processor": "A"}))
    speeds = [s for s in history(runs, LIMITS).series if s.what == "images_per_s" and not s.of_family]
    assert sorted((s.name, [p.run for p in s.points]) for s in speeds) == [
        ("vit_base.a", [0, 1]), ("vit_base.a", [2]), ("vit_tiny.in1k", [0, 1, 3]), ("vit_tiny.in1k", [2]),
    ]  # fmt: skip


def test_another_dataset_starts_a_new_series_of_scores():
    runs = [run(1, info()), run(2, info(hits=HITS * 0), dataset={"fingerprint": "beef"})]
    found = history(runs, LIMITS)
    assert found.steps == ()
    assert [len(s.points) for s in found.series if s.what == "acc" and not s.of_family] == [1, 1]


def test_a_renamed_model_continues_under_its_new_name():
    runs = [run(1, info(model="old.a")), run(2, info(model="new.a"), renamed={"old.a": "new.a"})]
    series = [s for s in history(runs, LIMITS).series if s.what == "images_per_s" and not s.of_family]
    assert [(s.name, len(s.points)) for s in series] == [("new.a", 2)]


def test_a_family_continues_when_models_are_added_or_removed():
    slow = "vit_huge.in1k"
    runs = [run(1, info(100.0)), run(2, info(100.0), info(4.0, model=slow)), run(3, info(4.0, model=slow))]
    (series,) = [s for s in history(runs, LIMITS).series if s.what == "images_per_s" and s.of_family]
    assert [p.value for p in series.points] == pytest.approx([100.0] * 3)


def test_a_run_saved_twice_counts_once_and_one_without_a_date_is_refused():
    once = runs_of([100, 100])
    assert len(history([*once, *once], LIMITS).runs) == 2
    with pytest.raises(UsageError, match=r"x\.json has no datetime"):
        history([made.as_run(made.saved([info()], CLASSES) | {"datetime": None}, "x.json")], LIMITS)


@pytest.mark.parametrize("change", [{"sketch": "AAAA"}, {"verdicts": "!", "scores": {"acc": 0.0, "acc5": 0.0}}])
def test_damaged_results_are_one_line(change):
    with pytest.raises(UsageError, match=r"02\.json: result of vit_tiny\.in1k: "):
        history([run(1, info()), run(2, info(**change))], LIMITS)


def test_limits_of_a_model_apply():
    special = Limits(parse_limits(DEFAULT), [(["vit_*"], ["vit"], parse_limits("images_per_s:off"))])
    assert steps(runs_of([100] * 4 + [80] * 4), special, families=True) == []
