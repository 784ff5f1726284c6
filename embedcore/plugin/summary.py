"""Leaderboards at the end of the session: in the terminal and in the report folder."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from embedcore.plain import encodable, minute, printable_lines, wrapped
from embedcore.plugin.gate import nothing_measured
from embedcore.plugin.machine import shared_cards
from embedcore.plugin.stash import COLLECTED, COLLECTOR, GATE, OPTIONS, SESSION, VERDICT
from embedcore.plugin.workers import tells_notes
from embedcore.results.estimate import show_duration, show_range
from embedcore.results.leaderboard import Leaderboard, build

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from embedcore.plugin.budget import Budget
    from embedcore.plugin.session import BenchmarkSession
    from embedcore.report.board.board_page import Unfinished
    from embedcore.report.gallery.gallery import Gallery

MOST_ROWS = 30
"""A table of pytest-benchmark of more rows than this would bury the leaderboards."""
MOST_NAMED = 5
"""So many models are named of those that were not reached."""


MOST_RANKED = 300
"""Models; of more it takes longer to find out how sure their ranks are than to write the page, so one in the middle of
a session leaves that to the end."""


def leaderboards(config: pytest.Config, *, ranked: bool = True) -> list[Leaderboard]:
    """The leaderboard of each dataset, that of the session first, over all that has reported so far; `ranked`: with how
    sure the ranks are."""
    from embedcore.zoo.families import FAMILIES

    collector = config.stash[COLLECTOR]
    rankings = collector.rankings() if ranked else {}
    return [
        build(
            collector.results_on(fingerprint),
            dataset=block,
            rankings=rankings.get(fingerprint),
            families=[family.slug for family in FAMILIES],
            titles={family.slug: family.title for family in FAMILIES},
        )
        for fingerprint, block in collector.datasets.items()
    ]


def show_leaderboards(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the leaderboards below pytest's own summary, at most as wide as the terminal."""
    from embedcore.report.board.terminal import terminal_report

    folder, collector = config.stash[OPTIONS].report, config.stash[COLLECTOR]
    reporter.section("embedcore: leaderboards")
    for notice in collector.notices:
        reporter.write_line(_shown(printable_lines(notice)))
    text = terminal_report(
        leaderboards(config),
        width=config.get_terminal_writer().fullwidth,
        settings=collector.settings,
        machine=collector.machine,
        when=collector.when,
        report_dir=None if folder is None else str(folder),
    )
    reporter.write_line(_shown(text))
    measured = sum(result.ok for result in collector.results.values())
    if hides_table(config, measured):
        reporter.write_line(f"pytest-benchmark's table of {measured} rows is left out: -v shows it")


def _shown(text: str) -> str:
    """What the terminal can show: where a sign fails, pytest would write a text on one line, its line ends escaped."""
    return encodable(text, getattr(sys.__stdout__, "encoding", None))


def show_verdict(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write what ``--embed-compare`` found, and that nothing was measured where that is so."""
    from embedcore.report.gate.comparison_export import report_to_github
    from embedcore.report.gate.comparison_text import text

    if GATE in config.stash:
        reporter.section("embedcore: compared with the saved run")
        if config.stash[GATE].base is None:
            reporter.write_line(f"no baseline: nothing is saved at {config.stash[OPTIONS].compare} yet")
    if VERDICT in config.stash:
        comparison, verdict = config.stash[VERDICT]
        reporter.write_line(_shown(text(comparison, verdict, width=config.get_terminal_writer().fullwidth)))
        report_to_github(comparison, verdict)
    nothing = nothing_measured(config)
    if nothing is not None:
        reporter.write_line(f"ERROR: {nothing}", red=True)


def hides_table(config: pytest.Config, rows: int) -> bool:
    """Whether pytest-benchmark's table is left out: it is long, and nobody has asked for it."""
    asked = any(
        str(argument).startswith(("--benchmark-columns", "--benchmark-compare", "--benchmark-sort"))
        for argument in config.invocation_params.args
    )
    asked = asked or bool(config.getoption("benchmark_compare_fail", None))  # which fails only where a table is shown
    return bool(config.stash[COLLECTOR].results) and rows > MOST_ROWS and config.get_verbosity() <= 0 and not asked


def notes(config: pytest.Config, session: BenchmarkSession) -> list[str]:
    """What is to be known before hours and gigabytes are spent: of the images, the network and the disk; nothing with
    ``-q``. Of pytest-xdist's workers the first one tells for all."""
    if config.get_verbosity() < 0 or not tells_notes(config):
        return []
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    shared = shared_cards(config.stash[OPTIONS].device, workers)
    return [*session.dataset.notes, *shared, *(session.plan.lines() if session.plan.worth_telling else ())]


def note_lines(config: pytest.Config, notes: Sequence[str]) -> str:
    """Notes as lines for the terminal."""
    return "\n".join(_wrapped(config, f"embedcore: {printable_lines(note)}") for note in notes)


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
    return f"{budget_words(session.budget)}: {_left_words(*session.remaining())}; go on with --embed-resume"


def remaining(config: pytest.Config) -> tuple[int, tuple[float, float] | None]:
    """How many cases are left, and the least and most seconds that they may take, if there is a basis."""
    session = config.stash.get(SESSION, None)
    if session is not None:
        return session.remaining()
    return config.stash[COLLECTOR].remaining()  # the controller of pytest-xdist


def how_far(config: pytest.Config) -> str:
    """How many cases are left, and for how long, where there is any basis."""
    return _left_words(*remaining(config))


def _left_words(count: int, seconds: tuple[float, float] | None) -> str:
    expected = "" if seconds is None or not count else f", {show_range(*seconds)}"
    return f"{count} case{'' if count == 1 else 's'} left{expected}"


def cases_done(config: pytest.Config) -> tuple[int, int]:
    """How many cases have reported, and how many there are."""
    collector = config.stash[COLLECTOR]
    return len(collector.reached & collector.cases.keys()), len(collector.cases)


def budget_words(budget: Budget) -> str:
    """That the time is over."""
    return f"--embed-budget of {show_duration(budget.seconds or 0.0)} is used up"


def not_reached(config: pytest.Config) -> str:
    """Which cases the session ended before, and how to go on; "" where it came to all of them."""
    session, collector = config.stash.get(SESSION, None), config.stash[COLLECTOR]
    cases = session.costs() if session else collector.cases
    models = [model for test, (model, _) in cases.items() if test not in collector.reached]
    if not models:
        return ""
    named = ", ".join(models[:MOST_NAMED]) + (", …" if len(models) > MOST_NAMED else "")
    line = f"embedcore: {len(models)} of {len(cases)} cases not reached ({named}); go on with --embed-resume"
    return _wrapped(config, line)


def nothing_selected(config: pytest.Config) -> str:
    """That ``-k`` and the like have left no case, with the names that look like a mistyped word."""
    from embedcore.zoo.registry import close_hint

    word = str(config.option.keyword)
    hint = close_hint(word) if re.fullmatch(r"[\w.]+", word) else ""
    said = f"embedcore: none of {config.stash[COLLECTED]} cases is selected by {_selection(config)}{hint}"
    return _wrapped(config, said)


def _wrapped(config: pytest.Config, line: str) -> str:
    return wrapped(_shown(line), config.get_terminal_writer().fullwidth)


def _selection(config: pytest.Config) -> str:
    given = {"-k": config.option.keyword, "-m": config.option.markexpr}
    return " and ".join(f"{option} {value!r}" for option, value in given.items() if value) or "what was asked for"


def write_report(config: pytest.Config) -> None:
    """Write what ``--embed-report`` asks for. Raises UsageError if it cannot be written."""
    from embedcore.report import report_folder as files

    folder, collector = config.stash[OPTIONS].report, config.stash[COLLECTOR]
    if folder is not None:
        boards = leaderboards(config)
        files.write_report(
            folder,
            boards,
            settings=collector.settings,
            machine=collector.machine,
            when=collector.when,
            unfinished=_unfinished(config),
            galleries=[_gallery(config, board) for board in boards],
            asked=config.stash[OPTIONS].gallery,
        )


def write_page(config: pytest.Config, reload_s: float) -> None:
    """Write the page of what has reported so far, which looks for its next version after so many seconds. Raises
    OSError."""
    from embedcore.report import report_folder as files

    folder, collector = config.stash[OPTIONS].report, config.stash[COLLECTOR]
    if folder is None:
        return
    ranked = len(collector.results) <= MOST_RANKED
    unfinished = _unfinished(config, reload_s)
    if unfinished is not None and not ranked:
        unfinished = replace(unfinished, words=f"{unfinished.words} How sure the ranks are is found out at the end.")
    pages = files.pages(
        leaderboards(config, ranked=ranked),
        settings=collector.settings,
        machine=collector.machine,
        when=collector.when,
        unfinished=unfinished,
    )
    files.put(folder, pages)


def _unfinished(config: pytest.Config, reload_s: float | None = None) -> Unfinished | None:
    """For the page; None where all cases are done."""
    from embedcore.report.board.board_page import Unfinished

    done, cases = cases_done(config)
    if done >= cases and reload_s is None:
        return None
    words = f"{done:,} of {cases:,} cases are done"
    if reload_s is None:
        return Unfinished(done, cases, f"Not finished: {words}.")
    clock = minute(config.stash[COLLECTOR].when)[11:]
    return Unfinished(
        done,
        cases,
        f"This run goes on: {words}; {how_far(config)}. As of {clock} UTC; the page renews itself.",
        reload_s,
    )


def _gallery(config: pytest.Config, board: Leaderboard) -> Gallery | None:
    """What the models of a board retrieve; the controller of pytest-xdist, which has no dataset, loads it again."""
    from embedcore.report.gallery.gallery import dataset_of, saved_gallery, session_gallery

    options, session = config.stash[OPTIONS], config.stash.get(SESSION, None)
    if session is None:
        settings = config.stash[COLLECTOR].settings
        cache = options.cache_folder
        return saved_gallery(board, cache, (), lambda: dataset_of(settings, cache), options.gallery)
    fingerprint = str(board.dataset.get("fingerprint"))
    dataset = session.datasets.get(fingerprint)
    if dataset is None:
        return None
    return session_gallery(board, dataset, options.cache_folder, options.gallery, session.pixels.get(fingerprint))


def prune_neighbours(config: pytest.Config) -> None:
    """Remove the neighbours of models that no report would show."""
    from embedcore.results.neighbours import FOLDER, Shelf

    options, collector = config.stash[OPTIONS], config.stash[COLLECTOR]
    if collector.run:
        Shelf(options.cache_folder / FOLDER, collector.run).prune(collector.results.values(), options.gallery)
