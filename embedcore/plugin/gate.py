"""``--embed-compare``: compare this session with a saved run when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from embedcore.compare.comparison import compare
from embedcore.compare.limits import read_limits
from embedcore.compare.verdict import judge, why_no_answer
from embedcore.errors import UsageError
from embedcore.results.reading import is_first_run, read_baseline

if TYPE_CHECKING:
    from embedcore.compare.comparison import Comparison
    from embedcore.compare.limits import Limits
    from embedcore.compare.verdict import Verdict
    from embedcore.results.result import Result
    from embedcore.results.run import Run

EXIT_UNDECIDED = 3
"""Exit code of a session with an undecided speed or memory, if `--embed-undecided fail` asks for it."""

TRIES = 2
"""Number of further measurements of a model whose speed fell."""

MeasureAgain = Callable[["Result"], "Result"]
"""Measure a result's case again, in batches of the same size."""


@dataclass(frozen=True)
class Gate:
    """Baseline and limits of the comparison, read before anything is measured so that mistakes are reported early."""

    base: Run | None
    """None for a first run, without a baseline."""
    limits: Limits


def open_gate(
    base: str | None, fail_on: str | None, *, storage: Path, folder: Path, allow_no_baseline: bool
) -> Gate | None:
    """Read the saved run `base` and the limits `fail_on`; None if no comparison is asked for. Raises UsageError.

    `storage`: pytest-benchmark's folder of saved runs; `folder`: the one that relative paths of limits refer to.
    """
    if base is None:
        if fail_on is not None:
            raise UsageError("--embed-fail-on needs --embed-compare BASE, the run to compare with")
        return None
    limits = read_limits(fail_on, folder)
    if allow_no_baseline and is_first_run(base, storage=storage):
        return Gate(None, limits)
    return Gate(read_baseline(base, option="--embed-allow-no-baseline", storage=storage), limits)


def judge_session(gate: Gate, new: Run, measure_again: MeasureAgain | None) -> tuple[Comparison, Verdict] | None:
    """Compare the session's run with the saved one; None without a baseline.

    `measure_again` confirms a fall of speed before it counts; None where nothing can be measured any more.
    """
    if gate.base is None:
        return None
    comparison = compare(gate.base, new)
    verdict = judge(comparison, gate.limits)
    if measure_again is not None:
        comparison, verdict = confirmed(comparison, gate.limits, verdict, measure_again)
    return comparison, verdict


def check_answer(comparison: Comparison, verdict: Verdict) -> None:
    """Raise UsageError if there is neither a regression nor a reason to pass: see `why_no_answer`."""
    if not verdict.failed and (why := why_no_answer(comparison, verdict)):
        raise UsageError(f"--embed-compare: this session and {comparison.base.path} cannot be compared: {why}")


def confirmed(
    comparison: Comparison, limits: Limits, verdict: Verdict, measure_again: MeasureAgain
) -> tuple[Comparison, Verdict]:
    """Measure each model whose speed fell too far `TRIES` times again, in fresh processes, and compare once more.

    The fastest of its measurements counts: interference makes a process slower, never faster.
    """
    slower = {finding.model for finding in verdict.of("regression") if finding.change.what == "images_per_s"}
    if not slower:
        return comparison, verdict
    suspects = [model.pair.new for model in comparison.models if model.model in slower]
    results = []
    for result in comparison.new.results:
        best = result
        for _ in range(TRIES if result in suspects else 0):
            best = max(best, measure_again(result), key=_speed)
        results.append(_with_speed(result, best))
    again = compare(comparison.base, replace(comparison.new, results=tuple(results)))
    return again, judge(again, limits)


def _speed(result: Result) -> float:
    return result.images_per_s.get("forward", 0.0) if result.ok else 0.0


def _with_speed(result: Result, faster: Result) -> Result:
    return msgspec.structs.replace(
        result,
        images_per_s=faster.images_per_s,
        durations=faster.durations,
        batch_size=faster.batch_size,
        crowded=faster.crowded,
    )
