"""``--embed-compare``: compare this session with a saved run when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.compare.comparison import compare
from embedcore.compare.limits import read_limits
from embedcore.compare.verdict import judge, why_no_answer
from embedcore.errors import UsageError
from embedcore.results.reading import is_first_run, read_baseline

if TYPE_CHECKING:
    from embedcore.compare.comparison import Comparison
    from embedcore.compare.limits import Limits
    from embedcore.compare.verdict import Verdict
    from embedcore.results.run import Run

EXIT_UNJUDGED = 2
"""Exit code of a session whose scores, drift or status cannot be compared with the baseline; as that of `compare`."""

EXIT_UNDECIDED = 3
"""Exit code of a session with an undecided speed or memory, if `--embed-undecided fail` asks for it."""

Settle = Callable[["Comparison", "Verdict"], "Verdict"]
"""Decide the speeds that the comparison of two sessions leaves open; see `embedcore.ab.confirm.settle`."""


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


def judge_session(gate: Gate, new: Run, settle: Settle) -> tuple[Comparison, Verdict] | None:
    """Compare the session's run with the saved one; None without a baseline."""
    if gate.base is None:
        return None
    comparison = compare(gate.base, new)
    return comparison, settle(comparison, judge(comparison, gate.limits))


def unjudged_line(comparison: Comparison, verdict: Verdict) -> str:
    """Return why there is neither a regression nor a reason to pass, "" if there is one; see `why_no_answer`."""
    why = "" if verdict.failed else why_no_answer(comparison, verdict)
    return why and f"--embed-compare: this session and {comparison.base.path} cannot be compared: {why}"
