"""A sweep of cases, most of which fail: each has its status and does not affect the others."""

from __future__ import annotations

import dataclasses

from embedcore.measure.executors import ChildExecutor
from embedcore.measure.inputs import CaseInputs

SWEEP = [
    ("Segfault", "crashed"),
    (None, "ok"),
    ("LeavesDaemon", "ok"),
    ("Hangs", "timeout"),
    ("ExhaustsMemory", "oom"),
    ("Garbage", "crashed"),
    (None, "ok"),
]


def test_each_case_has_its_status(case, images, faults, shape, tmp_path):
    results = []
    for number, (fault, _) in enumerate(SWEEP):
        pixels = getattr(faults, fault)(shape, str(tmp_path / f"pid{number}")) if fault else images.pixels
        seconds = 1.5 if fault == "Hangs" else 60
        limited = dataclasses.replace(case, memory_limit=0.5)
        results.append(ChildExecutor(seconds).run(limited, CaseInputs(images.truth, pixels)))
    assert [result.status for result in results] == [status for _, status in SWEEP]
    sound = [result for result, (fault, _) in zip(results, SWEEP, strict=True) if fault is None]
    alone = ChildExecutor(60).run(case, images)
    for result in sound:
        assert (result.scores, result.ci95, result.sketch) == (alone.scores, alone.ci95, alone.sketch)
        assert (result.detail, result.batch_decayed) == ("", False)
    for result in results:
        assert result.ok or result.reason
        assert not result.ok or result.peak_memory_mb > 0
