"""Leaderboards at the end of the session: in the terminal and in the report folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedcore.plain import printable_lines
from embedcore.plugin.machine import machine
from embedcore.plugin.stash import COLLECTOR, OPTIONS, SESSION
from embedcore.results.estimate import show_duration
from embedcore.results.leaderboard import Leaderboard, build

if TYPE_CHECKING:
    import pytest

    from embedcore.plugin.budget import Budget
    from embedcore.plugin.session import BenchmarkSession


def leaderboard(config: pytest.Config) -> Leaderboard:
    """The leaderboard of everything that has reported so far in this session."""
    from embedcore.zoo.families import FAMILIES

    collector = config.stash[COLLECTOR]
    return build(
        collector.results.values(),
        dataset=collector.dataset,
        families=[family.slug for family in FAMILIES],
        titles={family.slug: family.title for family in FAMILIES},
    )


def show_leaderboards(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the leaderboards below pytest's own summary, at most as wide as the terminal."""
    from embedcore.report.text import terminal_report

    folder = config.stash[OPTIONS].report
    session = config.stash.get(SESSION, None)
    reporter.section("embedcore: leaderboards")
    for notice in session.notices if session is not None else ():
        reporter.write_line(printable_lines(notice))
    reporter.write_line(
        terminal_report(
            [leaderboard(config)],
            width=config.get_terminal_writer().fullwidth,
            settings=config.stash[COLLECTOR].settings,
            machine=machine(),
            report_dir=None if folder is None else str(folder),
        )
    )


def tell_progress(config: pytest.Config, session: BenchmarkSession) -> None:
    """Write how far the sweep is, for logs that show no progress bar; not with ``-q``."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    left, seconds = session.remaining()
    if reporter is None or config.get_verbosity() < 0 or not left:
        return
    expected = "" if seconds is None else f", about {show_duration(seconds)} to go"
    reporter.ensure_newline()
    reporter.write_line(f"embedcore: {_cases(left)} left{expected}")


def budget_message(session: BenchmarkSession) -> str:
    """Why the session stops, what is left and how to go on."""
    left, seconds = session.remaining()
    expected = "" if seconds is None else f", about {show_duration(seconds)}"
    return f"{budget_words(session.budget)}: {_cases(left)} left{expected}; go on with --embed-resume"


def _cases(count: int) -> str:
    return f"{count} {'case' if count == 1 else 'cases'}"


def budget_words(budget: Budget) -> str:
    """That the time is over."""
    return f"--embed-budget of {show_duration(budget.seconds or 0.0)} is used up"


def write_report(config: pytest.Config) -> None:
    """Write what ``--embed-report`` asks for. Raises UsageError if it cannot be written."""
    from embedcore.report import files

    folder = config.stash[OPTIONS].report
    if folder is None:
        return
    files.write_report(folder, [leaderboard(config)], settings=config.stash[COLLECTOR].settings, machine=machine())
