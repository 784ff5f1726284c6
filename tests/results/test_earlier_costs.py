"""What earlier runs on a machine tell about the time of the next one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import records

from embedcore.results.result import Result
from embedcore.results.runs import earlier_costs

TIMED = {"gmacs": 2.0, "durations": [0.5, 0.5], "images_per_s": {"forward": 50.0, "end_to_end": 40.0}}


def _run(folder: Path, name: str, machine: str, results: list[Result], age: int = 0) -> Path:
    path = records.journal(folder, name, results, identity=records.IDENTITY | {"machine": machine})
    os.utime(path, (1_000_000_000 - age,) * 2)
    return path


def test_the_newest_run_on_the_machine_counts(tmp_path: Path, result_of: Callable[..., Result]) -> None:
    _run(tmp_path, "older", "A", [result_of("b.x", **TIMED | {"gmacs": 3.0})], age=2)
    _run(tmp_path, "here", "A", [result_of("a.x", **TIMED), result_of("c.x", status="oom", durations=[])], age=1)
    _run(tmp_path, "elsewhere", "B", [result_of("b.x", **TIMED)])
    ((gmacs, seconds),) = earlier_costs(tmp_path, {"machine": "A"}, images=400, processes=2)
    assert gmacs == 2.0 and seconds == pytest.approx(400 / 40 + 2 * (5 + 1))
    assert earlier_costs(tmp_path, {"machine": "C"}, images=400, processes=2) == []
    assert earlier_costs(tmp_path, {"machine": "A", "engine": "openvino"}, images=400, processes=2) == []
    assert earlier_costs(tmp_path / "none", {"machine": "A"}, images=400, processes=2) == []


def test_a_damaged_line_is_skipped(tmp_path: Path, result_of: Callable[..., Result]) -> None:
    path = _run(tmp_path, "here", "A", [result_of("a.x", **TIMED)])
    path.write_bytes(path.read_bytes() + b'{"model": "b.x", "gm')
    assert len(earlier_costs(tmp_path, {"machine": "A"}, images=1, processes=1)) == 1


def test_a_journal_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").mkdir()
    assert earlier_costs(tmp_path, {"machine": "A"}, images=1, processes=1) == []
