"""The plugin's hooks; each is short and leaves the work to another module of this room.

This module is imported in every pytest session of an environment where embedcore is installed, so neither it nor what
it imports at the top may import torch or timm.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import traceback
import warnings
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from embedcore.errors import EmbedcoreError
from embedcore.plain import printable_lines
from embedcore.plugin import cases, fixtures, stash, summary
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.collector import Collector
from embedcore.plugin.gate import judge_session, nothing_measured, open_gate
from embedcore.plugin.live import LivePage
from embedcore.plugin.options import Options, add_options
from embedcore.plugin.progress import LineOfWorkers, Position, Teller
from embedcore.plugin.saving import check_saving, commit_info, save_json
from embedcore.results.books import FOLDER, Place, runs_in_use

# Our keys in what pytest-xdist takes to its workers and back.
_OF_WORKERS = "embedcore"
_STOPPED = "embedcore_stopped"
_EMPTY_SHARD = "embedcore_empty_shard"


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{cases.FAMILY_MARK}(slug): the model's family on the leaderboards.")
    config.addinivalue_line("markers", "embed_harness: a benchmark of the harness's own speed.")
    config.stash[stash.OPTIONS] = Options.from_pytest_config(config)
    config.stash[stash.BUDGET] = Budget(config.stash[stash.OPTIONS].budget)
    config.stash[stash.COLLECTOR] = Collector()
    config.stash[stash.TELLER] = Teller(config)
    config.pluginmanager.register(fixtures, "embedcore-fixtures")
    config.pluginmanager.register(config.stash[stash.COLLECTOR], "embedcore-collector")
    config.pluginmanager.register(config.stash[stash.TELLER], "embedcore-teller")
    if config.stash[stash.OPTIONS].report is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(LivePage(config), "embedcore-live-page")


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[stash.OF_PYTEST] = session
    if session.config.pluginmanager.has_plugin("dsession"):  # the controller of pytest-xdist
        session.config.pluginmanager.register(LineOfWorkers(session.config), "embedcore-line-of-workers")
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    try:
        open_gate(session.config)
    except EmbedcoreError as error:
        raise pytest.UsageError(printable_lines(str(error))) from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let the workers of pytest-xdist agree on the run, and know what other sessions hold, before they begin."""
    config = node.config
    if stash.FOR_WORKERS not in config.stash:
        in_use = runs_in_use(config.stash[stash.OPTIONS].cache_folder / FOLDER)
        config.stash[stash.FOR_WORKERS] = {"run": Place.alone().new_run, "in_use": sorted(in_use)}
    node.workerinput[_OF_WORKERS] = config.stash[stash.FOR_WORKERS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if cases.MODEL_ARGUMENT not in metafunc.fixturenames:
        return
    options = metafunc.config.stash[stash.OPTIONS]
    try:
        if options.isolation == "process" and not metafunc.config.option.collectonly:
            from embedcore.forkserver import forkserver_context, start_surely

            start_surely(forkserver_context)  # it imports torch and timm while this process does
        parameters = cases.model_parameters(options)
        # Torch and timm are hundreds of thousands of objects that live for good. Python's collector, and pytest's calls
        # of it at the end, would go through them again and again: a third of the time of a collection of all cases.
        gc.freeze()
    except EmbedcoreError as error:
        # Raised here it would be one of many collection errors; raised after collection it is a usage error.
        metafunc.config.stash[stash.USAGE_ERROR] = printable_lines(str(error))
        parameters = []
    metafunc.config.stash[stash.COLLECTED] = metafunc.config.stash.get(stash.COLLECTED, 0) + len(parameters)
    metafunc.parametrize(cases.MODEL_ARGUMENT, parameters)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases.replay_timer(items)
    options = config.stash[stash.OPTIONS]
    if stash.USAGE_ERROR in config.stash or not any(map(cases.is_case, items)):
        return
    own = cases.own_of(config)
    if options.shard:
        others = cases.split_off(items, options.shard, own)
        if others:
            config.hook.pytest_deselected(items=others)
        if others and not any(map(cases.is_case, items)):
            said = f"shard {options.shard} is empty: all cases ({len(others)}) are in other shards"
            config.stash[stash.EMPTY_SHARD] = said
    if options.order == "cost":
        cases.sort_by_cost(items, own)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist tells that this worker is ready
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if stash.USAGE_ERROR in config.stash:
        _give_up(session, config.stash[stash.USAGE_ERROR], pytest.ExitCode.USAGE_ERROR)
        return
    items = [item for item in session.items if fixtures.OF_SESSION & set(getattr(item, "fixturenames", ()))]
    if config.option.collectonly or not items:
        return
    from embedcore.plugin.session import start_session

    options, budget = config.stash[stash.OPTIONS], config.stash[stash.BUDGET]
    models = [cases.model_of(item) for item in items if cases.is_case(item)]
    # pytest-benchmark warns where a failed or interrupted case has nothing to time: its report says it already.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")
    try:
        check_saving(config)
        with config.stash[stash.TELLER].telling(Position("looking at the images")) as stages:
            progress = functools.partial(stages, "")
            own = cases.own_of(config)
            origin = {"selection": options.selection(config), "commit_info": commit_info(config)}
            config.stash[stash.SESSION] = start_session(options, models, own, budget, _place(config), progress, origin)
        config.stash[stash.COLLECTOR].to_be_told = summary.notes(config, config.stash[stash.SESSION])
    except BudgetSpent:
        _give_up(session, f"{summary.budget_words(budget)} before the first case", pytest.ExitCode.INTERRUPTED)
    except EmbedcoreError as error:
        _give_up(session, printable_lines(str(error)), pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:  # below the terminal's line of what was collected
    config = session.config
    collector = config.stash[stash.COLLECTOR]
    here = config.pluginmanager.has_plugin("terminalreporter") and not hasattr(config, "workerinput")
    if collector.to_be_told and here:
        summary.tell(config, summary.note_lines(config, collector.to_be_told))
        collector.to_be_told = []


def _give_up(session: pytest.Session, why: str, code: pytest.ExitCode) -> None:
    """End the session before its first test; where this is a worker of pytest-xdist, its controller says why."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_STOPPED] = why, int(code)
        session.items.clear()
    elif code == pytest.ExitCode.USAGE_ERROR:
        raise pytest.UsageError(why)
    else:
        pytest.exit(why, returncode=code)


def _place(config: pytest.Config) -> Place:
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return Place.alone()
    given = worker[_OF_WORKERS]
    return Place(given["run"], worker["workerid"], frozenset(given["in_use"]))


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
    if session.exceeds_budget(cases.model_of(nextitem)):
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
        if hasattr(config, "workeroutput"):
            config.workeroutput[_OF_WORKERS] = books.notices
    if stash.EMPTY_SHARD in config.stash:
        if hasattr(config, "workeroutput"):
            config.workeroutput[_EMPTY_SHARD] = config.stash[stash.EMPTY_SHARD]
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


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    node.config.stash[stash.COLLECTOR].notice(output.get(_OF_WORKERS, ()))
    if _STOPPED in output:
        node.config.stash[stash.STOPPED] = output[_STOPPED]
    if _EMPTY_SHARD in output:
        node.config.stash[stash.EMPTY_SHARD] = output[_EMPTY_SHARD]


@pytest.hookimpl(wrapper=True, trylast=True)  # below pytest-benchmark's tables, above pytest's short summary
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> Generator[None, Any, Any]:
    shown: Any = []
    try:
        shown = yield
    except Exception as error:
        if type(error).__name__ != "PerformanceRegression":  # of pytest-benchmark, which has no public name for it
            raise
        # Raised here it would end the session with a traceback. What has regressed is told above the tables.
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


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(compared_benchmark: dict[str, Any]) -> None:
    # pytest-benchmark compares before collection, when it is not known yet that this is an embedcore session, and
    # would warn of a block that its own side lacks. Comparing versions of timm is what embedcore is for: not a warning.
    compared_benchmark["machine_info"].pop("embedcore", None)
