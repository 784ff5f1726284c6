"""The terminal summary: leaderboards, the comparison, and cases that were not reached or not measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from embedcore.durations import show_duration
from embedcore.plain import counted, printable_lines
from embedcore.plugin.budget import Budget
from embedcore.plugin.options import Options
from embedcore.plugin.terminal import showable
from embedcore.report.run_page import leaderboards, remaining_words
from embedcore.results.record import Record

MOST_ROWS = 30
"""A longer table of pytest-benchmark would bury the leaderboards."""
MOST_NAMED = 5
"""Maximum number of unreached models to list."""


def leaderboard_lines(record: Record, width: int, report: Path | None) -> Iterable[str]:
    """Yield warnings and leaderboards, for a terminal of that width."""
    from embedcore.report.board.terminal import terminal_report

    for warning in record.warnings:
        yield showable(printable_lines(warning))
    yield showable(
        terminal_report(
            leaderboards(record),
            width=width,
            settings=record.settings,
            machine=record.machine,
            when=record.when,
            report_dir=None if report is None else str(report),
        )
    )


def hides_table(config: pytest.Config, rows: int) -> bool:
    """Whether to leave out pytest-benchmark's table: it is long and no option asks for it."""
    asked = any(
        str(argument).startswith(("--benchmark-columns", "--benchmark-compare", "--benchmark-sort"))
        for argument in config.invocation_params.args
    )
    asked = asked or bool(config.getoption("benchmark_compare_fail", None))  # which fails only if a table is shown
    return rows > MOST_ROWS and config.get_verbosity() <= 0 and not asked


def budget_words(budget: Budget) -> str:
    """Return a message that the time is used up."""
    return f"--embed-budget of {show_duration(budget.seconds or 0.0)} is used up"


def budget_message(budget: Budget, record: Record, options: Options) -> str:
    """Return a message on why the session stops, the cases left, and how to continue."""
    how = "continue with --embed-resume" if options.claim is None else f"any worker on {options.claim} continues"
    return f"{budget_words(budget)}: {remaining_words(*record.remaining())}; {how}"


def unreached_line(record: Record) -> str:
    """Return a message on the cases not reached and how to continue; "" if there are none."""
    models = record.unreached
    if not models:
        return ""
    named = ", ".join(models[:MOST_NAMED]) + (", …" if len(models) > MOST_NAMED else "")
    return (
        f"embedcore: {len(models)} of {len(record.planned)} cases not reached ({named}); continue with --embed-resume"
    )


def nothing_selected(collected: int, keyword: str, marks: str) -> str:
    """Return a message that ``-k`` or ``-m`` selected no case, with model names similar to a mistyped word."""
    from embedcore.zoo.registry import close_hint

    hint = close_hint(keyword) if re.fullmatch(r"[\w.]+", keyword) else ""
    selection = " and ".join(f"{option} {value!r}" for option, value in {"-k": keyword, "-m": marks}.items() if value)
    return f"embedcore: none of {collected} cases matches {selection or 'the selection'}{hint}"


def nothing_measured(record: Record) -> str:
    """Return a message that no case was measured; "" if one was, or if there were no cases."""
    results = list(record.results.values())
    if not results or any(result.ok for result in results):
        return ""
    statuses = Counter(result.status for result in results)
    why = ", ".join(f"{count} {status}" for status, count in statuses.items())
    return f"nothing was measured: 0 of {counted(len(results), 'case')} ({why})"
