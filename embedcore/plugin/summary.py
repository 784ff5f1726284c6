"""Leaderboards at the end of the session: in the terminal and in the report folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedcore.plain import printable_lines
from embedcore.plugin.gate import nothing_measured
from embedcore.plugin.stash import COLLECTOR, GATE, OPTIONS, VERDICT
from embedcore.results.estimate import show_duration, show_range
from embedcore.results.leaderboard import Leaderboard, build

if TYPE_CHECKING:
    import pytest

    from embedcore.plugin.budget import Budget
    from embedcore.plugin.session import BenchmarkSession

MOST_ROWS = 30
"""A table of pytest-benchmark of more rows than this would bury the leaderboards."""


def leaderboards(config: pytest.Config) -> list[Leaderboard]:
    """The leaderboard of each dataset, that of the session first, over all that has reported so far."""
    from embedcore.zoo.families import FAMILIES

    collector = config.stash[COLLECTOR]
    return [
        build(
            [result for result in collector.results.values() if result.dataset == fingerprint],
            dataset=block,
            families=[family.slug for family in FAMILIES],
            titles={family.slug: family.title for family in FAMILIES},
        )
        for fingerprint, block in collector.datasets.items()
    ]


def show_leaderboards(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the leaderboards below pytest's own summary, at most as wide as the terminal."""
    from embedcore.report.text import terminal_report

    folder, collector = config.stash[OPTIONS].report, config.stash[COLLECTOR]
    reporter.section("embedcore: leaderboards")
    for notice in collector.notices:
        reporter.write_line(printable_lines(notice))
    text = terminal_report(
        leaderboards(config),
        width=config.get_terminal_writer().fullwidth,
        settings=collector.settings,
        machine=collector.machine,
        report_dir=None if folder is None else str(folder),
    )
    reporter.write_line(text)
    measured = sum(result.ok for result in collector.results.values())
    if hides_table(config, measured):
        reporter.write_line(f"pytest-benchmark's table of {measured} rows is left out: -v shows it")


def show_verdict(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write what ``--embed-compare`` found, and that nothing was measured where that is so."""
    from embedcore.report import comparison as report

    if GATE in config.stash:
        reporter.section("embedcore: compared with the saved run")
        if config.stash[GATE].base is None:
            reporter.write_line(f"no baseline: nothing is saved at {config.stash[OPTIONS].compare} yet")
    if VERDICT in config.stash:
        comparison, verdict = config.stash[VERDICT]
        reporter.write_line(report.text(comparison, verdict, width=config.get_terminal_writer().fullwidth))
        report.tell_github(comparison, verdict)
    nothing = nothing_measured(config)
    if nothing is not None:
        reporter.write_line(f"ERROR: {nothing}", red=True)


def hides_table(config: pytest.Config, rows: int) -> bool:
    """Whether pytest-benchmark's table is left out: it is long, and nobody has asked for it."""
    asked = any(
        str(argument).startswith(("--benchmark-columns", "--benchmark-compare", "--benchmark-sort"))
        for argument in config.invocation_params.args
    )
    return bool(config.stash[COLLECTOR].results) and rows > MOST_ROWS and config.get_verbosity() <= 0 and not asked


def tell(config: pytest.Config, line: str) -> None:
    """Write a line between those of pytest, where there are any."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        if config.get_terminal_writer().width_of_current_line:  # a dot that pytest has forgotten
            reporter.write_line("")
        reporter.write_line(line)


def budget_message(session: BenchmarkSession) -> str:
    """Why the session stops, what is left and how to go on."""
    return f"{budget_words(session.budget)}: {left_words(session)}; go on with --embed-resume"


def left_words(session: BenchmarkSession) -> str:
    """How many cases are left, and for how long, where there is any basis."""
    count, seconds = session.remaining()
    expected = "" if seconds is None or not count else f", {show_range(*seconds)}"
    return f"{count} case{'' if count == 1 else 's'} left{expected}"


def budget_words(budget: Budget) -> str:
    """That the time is over."""
    return f"--embed-budget of {show_duration(budget.seconds or 0.0)} is used up"


def write_report(config: pytest.Config) -> None:
    """Write what ``--embed-report`` asks for. Raises UsageError if it cannot be written."""
    from embedcore.report import files

    folder, collector = config.stash[OPTIONS].report, config.stash[COLLECTOR]
    if folder is not None:
        files.write_report(folder, leaderboards(config), settings=collector.settings, machine=collector.machine)
