"""``--embed-compare``: this session against a saved run, when it ends; and the session that measured nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.errors import UsageError
from embedcore.plugin.stash import COLLECTOR, GATE, OPTIONS, SESSION

if TYPE_CHECKING:
    import pytest

    from embedcore.compare.comparison import Comparison
    from embedcore.compare.limits import Limits
    from embedcore.compare.verdict import Verdict
    from embedcore.results.result import Result
    from embedcore.results.run import Run

TRIES = 2
"""How often a model whose speed fell is measured again."""


@dataclass(frozen=True)
class Gate:
    """What the session is compared with; read before anything is measured, so that a mistake is told at once."""

    base: Run | None
    """None for a first run: there is nothing saved yet."""
    limits: Limits


def open_gate(config: pytest.Config) -> None:
    """Read the saved run and the limits. Raises UsageError for what cannot be used."""
    from embedcore.compare.limits import read_limits
    from embedcore.results.run import is_first_run, read_run

    options = config.stash[OPTIONS]
    if options.compare is None:
        if options.fail_on is not None:
            raise UsageError("--embed-fail-on: it needs --embed-compare BASE, the run to compare with")
        return
    storage = Path(str(config.getoption("benchmark_storage", "") or ".benchmarks").removeprefix("file://"))
    limits = read_limits(options.fail_on, config.invocation_params.dir)
    first = is_first_run(options.compare, storage=storage)
    config.stash[GATE] = Gate(None if first else read_run(options.compare, storage=storage), limits)


def judge_session(config: pytest.Config) -> tuple[Comparison, Verdict] | None:
    """Compare what was measured with the saved run; a fall of speed is measured again before it counts.

    None where there is nothing to compare with. Raises UsageError where nothing can be compared.
    """
    from embedcore.compare.comparison import compare
    from embedcore.compare.verdict import judge
    from embedcore.plugin.saving import content
    from embedcore.results.run import run_of

    gate = config.stash[GATE]
    if gate.base is None:
        return None
    comparison = compare(gate.base, run_of(content(config), Path("this session")))
    verdict = judge(comparison, gate.limits)
    session = config.stash.get(SESSION, None)  # None in the controller of pytest-xdist, which measures nothing
    if session is not None and session.budget.left() > 0:
        comparison, verdict = confirmed(comparison, gate.limits, verdict, session.measure_again)
    if not comparison.compared and verdict.passed:
        why = "; ".join(comparison.barriers.values()) or "they have no measured model in common"
        raise UsageError(f"--embed-compare: nothing of this session and {gate.base.path} can be compared: {why}")
    return comparison, verdict


def confirmed(
    comparison: Comparison, limits: Limits, verdict: Verdict, measure_again: Callable[[str, int], Result]
) -> tuple[Comparison, Verdict]:
    """The same with each model whose speed fell too far measured again, `TRIES` times in fresh processes.

    The fastest of its measurements counts: what disturbs a process makes it slower, never faster.
    """
    from embedcore.compare.comparison import compare
    from embedcore.compare.verdict import judge

    suspects = [finding.model for finding in verdict.of("regression") if finding.change.what == "images_per_s"]
    if not suspects:
        return comparison, verdict
    best = {result.model: result for result in comparison.new.results}
    for model in suspects:
        tries = [measure_again(model, best[model].batch_size or 1) for _ in range(TRIES)]
        best[model] = max([best[model], *(result for result in tries if result.ok)], key=_rate)
    new = replace(comparison.new, results=tuple(_with_speed(r, best[r.model]) for r in comparison.new.results))
    again = replace(compare(comparison.base, new), settings=comparison.settings)  # which name passed-over datasets
    return again, judge(again, limits)


def _rate(result: Result) -> float:
    return result.images_per_s.get("forward", 0.0)


def _with_speed(result: Result, faster: Result) -> Result:
    import msgspec

    return msgspec.structs.replace(
        result,
        images_per_s=faster.images_per_s,
        durations=faster.durations,
        batch_size=faster.batch_size,
        crowded=faster.crowded,
    )


def nothing_measured(config: pytest.Config) -> str | None:
    """What to say where cases were run and none of them was measured; None where one was, or there were no cases."""
    results = list(config.stash[COLLECTOR].results.values())
    if not results or any(result.ok for result in results):
        return None
    statuses: dict[str, int] = {}
    for result in results:
        statuses[result.status] = statuses.get(result.status, 0) + 1
    why = ", ".join(f"{count} {status}" for status, count in statuses.items())
    return f"nothing was measured: 0 of {len(results)} {'case' if len(results) == 1 else 'cases'} ({why})"
