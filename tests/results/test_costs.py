"""What a run costs on machines on which some models were measured, against hand computation."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import records
import synthetic_runs as made

from embedcore.results.costs import Setup, costs_by_setup, machine_costs
from embedcore.results.result import Result
from embedcore.results.run import Run

CLASSES = np.zeros(2, dtype=int)
IMAGES = 1000


def timed(gmacs: float, images_per_s: float, rounds_s: float, **fields: Any) -> dict[str, Any]:
    """Fields of a result; its case takes ``IMAGES / images_per_s + 5 + rounds_s`` seconds in one process."""
    speeds = {"forward": 1e9, "end_to_end": images_per_s}
    return {"gmacs": gmacs, "images_per_s": speeds, "durations": [rounds_s / 2] * 2, "engine": "eager"} | fields


SMALL, LARGE = timed(10.0, 100.0, 1.0), timed(30.0, 50.0, 4.0)  # 16 s and 29 s


def run_of(gpu: str, **models: dict[str, Any]) -> Run:
    hits = np.ones(2, dtype=np.uint8)
    results = [made.result(f"{name}.x", CLASSES, hits, **fields) for name, fields in models.items()]
    return made.as_run(made.saved(results, CLASSES, machine={**made.MACHINE, "gpu": gpu}))


def test_hours_of_two_cards_equal_hand_computation(tmp_path: Path, result_of: Callable[..., Result]) -> None:
    slow = {"a.x": timed(10.0, 10.0, 1.0, precision="bf16"), "b.x": timed(30.0, 5.0, 4.0, precision="bf16")}
    results = [result_of(name, **fields) for name, fields in slow.items()]
    records.journal(tmp_path, "run", results, identity=records.IDENTITY | {"machine": "L4"})
    measured = costs_by_setup([run_of("H100", a=SMALL, b=LARGE)], tmp_path, IMAGES, processes=1)
    assert measured == {
        Setup("H100", "eager", "fp32"): [(10.0, 16.0), (30.0, 29.0)],
        Setup("L4", "eager", "bf16"): [(10.0, 106.0), (30.0, 209.0)],
    }
    fast, slower = machine_costs(measured, [10.0, 20.0, 50.0, None], within=100.0)
    # Half of the quickest case is fixed, the rest is in proportion to GMACs; the unknown model counts as the mean.
    gmacs = 10.0 + 20.0 + 50.0 + 80.0 / 3
    assert fast.seconds == pytest.approx(4 * 8.0 + gmacs * (16.0 + 29.0 - 2 * 8.0) / 40.0)
    assert slower.seconds == pytest.approx(4 * 53.0 + gmacs * (106.0 + 209.0 - 2 * 53.0) / 40.0)
    assert [each.setup.machine for each in (fast, slower)] == ["H100", "L4"]
    for each in (fast, slower):
        low, high = each.range
        assert low < each.seconds < high and low * high == pytest.approx(each.seconds**2)
        assert (each.measured, each.outside) == (2, 2)
    assert fast.workers == math.ceil(fast.range[1] / 100.0)
    # The largest model alone takes 53 + 50 x 5.225 seconds on the slower card.
    assert slower.workers is None
    (_, slower) = machine_costs(measured, [10.0, 20.0, 50.0, None], within=315.0)
    assert slower.workers == math.ceil(slower.range[1] / 315.0)


def test_the_first_measurement_of_a_model_counts(tmp_path: Path, result_of: Callable[..., Result]) -> None:
    identity = records.IDENTITY | {"machine": "H100"}
    for age, (name, fields) in enumerate([("newer", LARGE), ("older", SMALL)]):
        other = timed(20.0 + age, 100.0, 1.0)
        results = [result_of("a.x", **fields), result_of("b.x", **other), result_of("c.x", status="oom", durations=[])]
        path = records.journal(tmp_path, name, results, identity=identity)
        os.utime(path, (1_000_000_000 - age,) * 2)
    (costs,) = costs_by_setup([], tmp_path, IMAGES, processes=1).values()
    assert costs == [(30.0, 29.0), (20.0, 16.0)]
    (costs,) = costs_by_setup([run_of("H100", b=SMALL)], tmp_path, IMAGES, processes=1).values()
    assert costs == [(10.0, 16.0), (30.0, 29.0)]
    (costs,) = costs_by_setup([run_of("H100", b=SMALL)], tmp_path / "none", IMAGES, processes=2).values()
    assert costs == [(10.0, 22.0)]


def test_each_engine_precision_and_machine_of_a_merged_run_is_a_setup(tmp_path: Path) -> None:
    ways = {
        "a": {"processor": "H100, driver 570"},
        "b": {"processor": "an AMD EPYC, 2 threads"},
        "c": {"engine": "compile"},
        "d": {"precision": "bf16", "engine": None},
        "e": {"durations": []},
        "f": {"gmacs": None},
    }
    run = run_of("A100", **{name: SMALL | fields for name, fields in ways.items()})
    assert [*costs_by_setup([run], tmp_path, IMAGES, 1)] == [
        Setup("H100", "eager", "fp32"),
        Setup("an AMD EPYC, 2 threads", "eager", "fp32"),
        Setup("A100", "compile", "fp32"),
        Setup("A100", "eager", "bf16"),
    ]


def test_nothing_measured_costs_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").mkdir()
    assert costs_by_setup([], tmp_path, IMAGES, 1) == {} and machine_costs({}, [1.0], 60.0) == []
