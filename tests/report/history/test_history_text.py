"""A history as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare.history import History, history
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.report.history import history_text as report

CLASSES = np.repeat(np.arange(20), 5)
MODELS = ("vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k", *(f"resnet{n}.a1_in1k" for n in range(7)))


def made_history(speeds: Sequence[float] = (100.0, 100.0, 100.0, 85.0, 85.0)) -> History:
    runs = []
    for day, speed in enumerate(speeds, start=1):
        machine = made.MACHINE | {"driver": "560" if speed > 90 else "570"}
        infos = [
            made.result(
                model,
                CLASSES,
                made.hits_of(model, CLASSES, 0.6),
                images_per_s={"forward": speed},
                family=model[:3],
                processes=[],
            )
            for model in MODELS
        ]
        data = made.saved(infos, CLASSES, machine=machine) | {"datetime": f"2026-11-{day:02d}T12:00:00+00:00"}
        runs.append(made.as_run(data, f"000{day}_nightly.json"))
    return history(runs, Limits(parse_limits(DEFAULT)))


def test_the_steps_come_first_with_their_run_and_fit_the_terminal() -> None:
    found = made_history()
    shown = [series for series in found.series if series.matches("vit*")]
    text = report.text(found, shown, width=80)
    head, first, *_ = text.split("\n\n")
    assert head == "5 runs, 2026-11-01 to 2026-11-05, 8 models: 10 steps in 1 run"
    assert first.startswith("2026-11-04 12:00  nightly\n  driver 560 → 570\n")
    assert "  images_per_s  -15.0 %  100 → 85.0      family res\n" in first
    assert "    … 3 more models; worse in 8 of all 8\n" in text
    assert "family vit" in text and "███▁▁" in text
    assert max(map(len, text.splitlines())) <= 80


def test_trends_come_before_the_steps_with_their_period() -> None:
    found = made_history([round(100 * 0.97**n, 2) for n in range(9)])
    text = report.text(found, [], width=80)
    assert text.splitlines()[0] == "9 runs, 2026-11-01 to 2026-11-09, 8 models: 11 trends, no step"
    assert "Trends\n  images_per_s   -3.0 % a run  100 → 78.4      all models\n" in text
    assert "      2026-11-01 to 2026-11-09, 9 runs; driver 560 → 570\n" in text
    assert "    … 3 more models; worse in 8 of all 8\n" in text
    assert max(map(len, text.splitlines())) <= 80
    data = report.to_json(found, found.series)
    assert {(one["before"], one["run"], one["runs"], one["worse"]) for one in data["trends"]} == {(0, 8, 9, True)}
    assert [one["rate"] for one in data["trends"]] == [pytest.approx(-0.03, abs=1e-4)] * 11
    rows = list(csv.DictReader(io.StringIO(report.to_csv(found, found.series))))
    assert {row["trend"] for row in rows if row["what"] == "images_per_s"} == {"1"}
    assert {row["trend"] for row in rows if row["what"] != "images_per_s"} == {"0"}


def test_a_series_of_pinned_threads_and_a_step_of_one_process_say_so() -> None:
    found = made_history()
    series = replace(found.steps[0].series, pinned=True, weak=frozenset({4}))
    step = replace(found.steps[0], series=series, run=4, runs_after=1)
    text = report.text(replace(found, steps=(step,)), [], width=80)
    assert "family res, one thread (one process)\n" in text


def test_a_history_without_steps() -> None:
    assert report.text(made_history([100.0] * 3), []) == "3 runs, 2026-11-01 to 2026-11-03, 8 models: no step\n"


def test_a_sparkline_of_non_finite_and_of_equal_values() -> None:
    assert report.sparkline([0.0, float("inf"), 1.0]) == "▁!█"
    assert report.sparkline([0.1 + 0.2, 0.3, 0.3]) == "▄▄▄"
    assert report.sparkline([]) == ""


def test_json_and_csv_have_every_point() -> None:
    found = made_history()
    data = json.loads(json.dumps(report.to_json(found, found.series), allow_nan=False))
    assert [run["driver"] for run in data["runs"]] == ["560", "560", "560", "570", "570"]
    assert {(step["before"], step["run"], step["what"]) for step in data["steps"]} == {(2, 3, "images_per_s")}
    points = sum(len(series["points"]) for series in data["series"])
    rows = list(csv.DictReader(io.StringIO(report.to_csv(found, found.series))))
    assert len(rows) == points == sum(len(series.points) for series in found.series)
    assert sum(int(row["step"]) for row in rows) == len(data["steps"]) == 10


def test_a_csv_cannot_contain_a_formula() -> None:
    runs = [
        made.as_run(made.saved([made.result("=cmd()", CLASSES, made.hits_of("a", CLASSES, 0.6))], CLASSES), f"{n}.json")
        for n in range(2)
    ]
    found = history(runs, Limits(parse_limits(DEFAULT)))
    rows = list(csv.DictReader(io.StringIO(report.to_csv(found, found.series))))
    assert {row["model"] for row in rows} <= {"", "'=cmd()"} and any(row["model"] for row in rows)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "＝"])
def test_a_csv_cannot_contain_a_path_that_is_a_formula(sign: str) -> None:
    infos = [made.result("a.b", CLASSES, made.hits_of("a", CLASSES, 0.6))]
    found = history([made.as_run(made.saved(infos, CLASSES), f"{sign}1+1.json")], Limits(parse_limits(DEFAULT)))
    rows = list(csv.DictReader(io.StringIO(report.to_csv(found, found.series), newline="")))
    assert {row["run"] for row in rows} == {f"'{sign.strip()}1+1.json"}
