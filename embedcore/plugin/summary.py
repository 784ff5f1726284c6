"""Leaderboards at the end of the session: in the terminal and in the report folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.plugin.stash import COLLECTOR, OPTIONS, SESSION
from embedcore.results.estimate import show_duration
from embedcore.results.leaderboard import Leaderboard, build

if TYPE_CHECKING:
    import pytest

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
    if session is not None and session.resumed:
        reporter.write_line(f"resumed: {session.resumed} of {len(session.results)} results are from before")
    reporter.write_line(
        terminal_report(
            leaderboard(config),
            width=config.get_terminal_writer().fullwidth,
            settings=config.stash[COLLECTOR].settings,
            report_dir=None if folder is None else str(folder),
        )
    )


def budget_message(session: BenchmarkSession) -> str:
    """Why the session stops, what is left and how to go on."""
    left, seconds = session.remaining()
    expected = "" if seconds is None else f", about {show_duration(seconds)}"
    spent = show_duration(session.options.budget or 0.0)
    return f"--embed-budget of {spent} is used up: {left} cases left{expected}; go on with --embed-resume"


def write_report(config: pytest.Config, folder: Path) -> None:
    """Write leaderboard.md, .csv and .json into ``folder``. Raises UsageError if it cannot be written."""
    from embedcore.report import files

    files.write_report(folder, leaderboard(config), settings=config.stash[COLLECTOR].settings)
