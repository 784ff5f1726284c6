"""The hooks of a session that has tests of ours; each is short and leaves the work to another module of this room."""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from embedcore.errors import EmbedcoreError
from embedcore.plain import printable_lines
from embedcore.plugin import cases, stash, summary
from embedcore.plugin.budget import BudgetSpent
from embedcore.plugin.collector import Collector
from embedcore.plugin.gate import judge_session, nothing_measured
from embedcore.plugin.live import LivePage
from embedcore.plugin.progress import LineOfWorkers, Position, Teller
from embedcore.plugin.saving import check_saving, commit_info, save_json
from embedcore.plugin.workers import end_before_first_test, place_of, tell_controller


def set_up(config: pytest.Config) -> None:
    """Put the state of such a session on its configuration, and register these hooks."""
    config.stash[stash.COLLECTOR] = Collector()
    config.stash[stash.TELLER] = Teller(config)
    config.pluginmanager.register(config.stash[stash.COLLECTOR], "embedcore-collector")
    config.pluginmanager.register(config.stash[stash.TELLER], "embedcore-teller")
    if config.stash[stash.OPTIONS].report is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(LivePage(config), "embedcore-live-page")
    if config.pluginmanager.has_plugin("dsession"):  # the controller of pytest-xdist
        config.pluginmanager.register(LineOfWorkers(config), "embedcore-line-of-workers")
    config.pluginmanager.register(sys.modules[__name__], "embedcore-session")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist tells that this worker is ready
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if stash.USAGE_ERROR in config.stash:
        end_before_first_test(session, config.stash[stash.USAGE_ERROR], pytest.ExitCode.USAGE_ERROR)
        return
    items = [item for item in session.items if cases.needs_session(item)]
    if config.option.collectonly or not items:
        return
    from embedcore.plugin.session import start_session

    options, budget = config.stash[stash.OPTIONS], config.stash[stash.BUDGET]
    planned = {item.nodeid: cases.model_of(item) for item in items if cases.is_case(item)}
    # pytest-benchmark warns where a failed or interrupted case has nothing to time: its report says it already.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")
    try:
        check_saving(config)
        with config.stash[stash.TELLER].telling(Position("looking at the images")) as stages:
            progress = functools.partial(stages, "")
            own = cases.own_of(config)
            origin = {"selection": options.selection(config), "commit_info": commit_info(config)}
            place = place_of(config)
            config.stash[stash.SESSION] = start_session(options, planned, own, budget, place, progress, origin)
        config.stash[stash.COLLECTOR].to_be_told = summary.notes(config, config.stash[stash.SESSION])
    except BudgetSpent:
        why = f"{summary.budget_words(budget)} before the first case: it counts from the start of pytest"
        end_before_first_test(session, why, pytest.ExitCode.INTERRUPTED)
    except EmbedcoreError as error:
        end_before_first_test(session, printable_lines(str(error)), pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:  # below the terminal's line of what was collected
    config = session.config
    collector = config.stash[stash.COLLECTOR]
    here = config.pluginmanager.has_plugin("terminalreporter") and not hasattr(config, "workerinput")
    if collector.to_be_told and here:
        summary.tell(config, summary.note_lines(config, collector.to_be_told))
        collector.to_be_told = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    session, collector = item.config.stash.get(stash.SESSION, None), item.config.stash[stash.COLLECTOR]
    if session is not None and call.when == "setup":  # what is known before the first case is measured
        collector.attach(report, [], session)
    if session is not None and call.when == "call" and stash.RESULTS in item.stash:
        collector.attach(report, item.stash[stash.RESULTS], session)
        del item.stash[stash.RESULTS]  # the test may run again, as with --reruns
        if report.skipped and isinstance(report.longrepr, tuple):  # -rs names the benchmark, not where we skip in it
            path, line, _ = item.reportinfo()
            report.longrepr = str(path), (line or 0) + 1, report.longrepr[2]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    with contextlib.ExitStack() as item.stash[stash.UNTIL_REPORTED]:
        outcome = yield
    session = item.config.stash.get(stash.SESSION, None)
    if session is None or nextitem is None or not cases.is_case(nextitem):
        return outcome
    if session.exceeds_budget(nextitem.nodeid):
        item.session.shouldstop = summary.budget_message(session)
    return outcome


@pytest.hookimpl(tryfirst=True)  # before the terminal's, which shows where the interrupt hit
def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    # Python 3.11 and later give some instructions no line; pytest falls over one that is hit, and saves nothing then.
    lines = [line for _, line in traceback.walk_tb(excinfo.tb)]
    if None in lines:
        excinfo.traceback = type(excinfo.traceback)(
            entry for entry, line in zip(excinfo.traceback, lines, strict=True) if line is not None
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if stash.SESSION in config.stash:
        books = config.stash[stash.SESSION].books
        books.close()
        config.stash[stash.COLLECTOR].notice(books.notices)
        tell_controller(config, notices=books.notices)
    if stash.EMPTY_SHARD in config.stash:
        tell_controller(config, empty_shard=config.stash[stash.EMPTY_SHARD])
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
    if stash.STOPPED in config.stash:
        session.exitstatus = config.stash[stash.STOPPED][1]
    if not _has_block(config) or hasattr(config, "workerinput") or config.option.collectonly:
        return
    for act in (save_json, summary.prune_neighbours, summary.write_report, _judge):
        try:
            act(config)
        except EmbedcoreError as error:
            # Raised here it would keep what follows from being done; the summary shows it.
            config.stash[stash.UNWRITTEN] = [*config.stash.get(stash.UNWRITTEN, []), printable_lines(str(error))]
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
    failed = nothing_measured(config) or (stash.VERDICT in config.stash and not config.stash[stash.VERDICT][1].passed)
    if failed and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") and stash.SESSION in config.stash:
        # pytest-benchmark's, into the middle of the dots: that it measures nothing under pytest-xdist. We do.
        warnings.filterwarnings("ignore", "Benchmarks are automatically disabled because xdist")


def _judge(config: pytest.Config) -> None:
    measured = config.stash[stash.COLLECTOR].results and nothing_measured(config) is None
    judged = judge_session(config) if stash.GATE in config.stash and measured else None
    if judged is not None:
        config.stash[stash.VERDICT] = judged


@pytest.hookimpl(wrapper=True, trylast=True)  # below pytest-benchmark's tables, above pytest's short summary
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> Generator[None, Any, Any]:
    shown: Any = []
    try:
        shown = yield
    except Exception as error:
        # pytest-benchmark has no public name for it. In a session without results it is not ours to handle.
        if type(error).__name__ != "PerformanceRegression" or not config.stash[stash.COLLECTOR].results:
            raise
        # Passed on, it would end the session with a traceback. pytest-benchmark has listed what regressed above.
        config.stash[stash.UNWRITTEN] = [*config.stash.get(stash.UNWRITTEN, []), f"--benchmark-compare-fail: {error}"]
        config.stash[stash.OF_PYTEST].exitstatus = pytest.ExitCode.TESTS_FAILED
    finally:
        _summarise(terminalreporter, exitstatus, config)
    return shown


def _summarise(reporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config) -> None:
    if config.stash[stash.COLLECTOR].results:
        summary.show_leaderboards(reporter, config)
        summary.show_verdict(reporter, config)
    if exitstatus != pytest.ExitCode.USAGE_ERROR and (line := summary.not_reached(config)):
        reporter.write_line(line)
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and config.stash.get(stash.COLLECTED, 0):
        reporter.write_line(summary.nothing_selected(config))
    if stash.EMPTY_SHARD in config.stash:
        reporter.write_line(f"embedcore: {config.stash[stash.EMPTY_SHARD]}")
    if stash.STOPPED in config.stash:
        reporter.write_line(f"ERROR: {config.stash[stash.STOPPED][0]}", red=True)
    for line in config.stash.get(stash.UNWRITTEN, []):
        reporter.write_line(f"ERROR: {line}", red=True)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: Sequence[Any]) -> list[Any] | None:
    """No groups, and so no table, where it would bury the leaderboards."""
    return [] if summary.hides_table(config, len(benchmarks)) else None


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if _has_block(config):
        selection = config.stash[stash.OPTIONS].selection(config)
        output_json["embedcore"] = config.stash[stash.COLLECTOR].json_block(selection)


def _has_block(config: pytest.Config) -> bool:
    """Whether this session's JSON is one of ours: that of an empty shard too, so that none is missing."""
    return bool(config.stash[stash.COLLECTOR].results) or stash.EMPTY_SHARD in config.stash


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    if config.stash[stash.COLLECTOR].results:
        machine_info["embedcore"] = dict(config.stash[stash.COLLECTOR].machine)
