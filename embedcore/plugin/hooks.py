"""The hooks of every pytest session where embedcore is installed; they activate the rest of the plugin when needed.

A session without our tests pays for reading the options and for nothing else, so neither this module nor what it
imports at the top may import more than the standard library and pytest. `activate` registers `session_hooks`.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest

from embedcore.errors import EmbedcoreError
from embedcore.plain import printable_lines
from embedcore.plugin import cases, fixtures, stash
from embedcore.plugin.budget import Budget
from embedcore.plugin.options import Options, add_options


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{cases.FAMILY_MARK}(slug): the model's family on the leaderboards.")
    config.addinivalue_line("markers", "embed_harness: a benchmark of the harness's own speed.")
    options = config.stash[stash.OPTIONS] = Options.from_pytest_config(config)
    config.stash[stash.BUDGET] = Budget.of_session(options.budget, config)
    config.pluginmanager.register(fixtures, "embedcore-fixtures")


def pytest_sessionstart(session: pytest.Session) -> None:
    config, options = session.config, session.config.stash[stash.OPTIONS]
    config.stash[stash.OF_PYTEST] = session
    if config.pluginmanager.has_plugin("dsession"):  # the controller of pytest-xdist
        config.pluginmanager.register(_Controller(config), "embedcore-controller")
    is_worker = hasattr(config, "workerinput")
    if (options.compare, options.fail_on) == (None, None) or is_worker or config.option.collectonly:
        return
    from embedcore.plugin.gate import open_gate

    try:
        open_gate(config)
    except EmbedcoreError as error:
        raise pytest.UsageError(printable_lines(str(error))) from error


def activate(config: pytest.Config) -> None:
    """Prepare a session that has tests of ours, as soon as that is known: its state and the hooks that need it."""
    if stash.COLLECTOR not in config.stash:
        from embedcore.plugin import session_hooks

        session_hooks.set_up(config)


@pytest.hookimpl(trylast=True)  # after hooks of the project, which may parametrize a test that only looks like ours
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not cases.wants_models(metafunc):
        return
    config = metafunc.config
    activate(config)
    options = config.stash[stash.OPTIONS]
    try:
        if options.isolation == "process" and not config.option.collectonly:
            from embedcore.forkserver import forkserver_context, start_surely

            start_surely(forkserver_context)  # it imports torch and timm while this process does
        parameters = cases.model_parameters(options)
        # Torch and timm are hundreds of thousands of objects that live for good. Python's collector, and pytest's calls
        # of it at the end, would go through them again and again: a third of the time of a collection of all cases.
        gc.freeze()
    except EmbedcoreError as error:
        # Raised here it would be one of many collection errors; raised after collection it is a usage error.
        config.stash[stash.USAGE_ERROR] = printable_lines(str(error))
        parameters = []
    config.stash[stash.COLLECTED] = config.stash.get(stash.COLLECTED, 0) + len(parameters)
    metafunc.parametrize(cases.MODEL_ARGUMENT, parameters, indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(map(cases.is_ours, items)):
        activate(config)
        cases.prepare(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist its place among the others before it begins."""
    if stash.OPTIONS not in node.config.stash:  # parsed, but never configured
        return
    from embedcore.plugin.workers import worker_input

    node.workerinput[stash.OF_WORKERS] = worker_input(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of pytest-xdist says at its end."""
    from embedcore.plugin.workers import said_by, take

    said = said_by(node)
    if said:
        activate(node.config)
        take(node.config, said)


class _Controller:
    """A pytest plugin of pytest-xdist's controller, which collects no tests: the first report of ours activates it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, stash.ON_REPORTS) and stash.COLLECTOR not in self._config.stash:
            activate(self._config)
            for plugin in (self._config.stash[stash.COLLECTOR], self._config.stash[stash.TELLER]):
                plugin.pytest_runtest_logreport(report)  # registered too late for this very call


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(compared_benchmark: dict[str, Any]) -> None:
    # pytest-benchmark compares before collection, when it is not known yet that this is an embedcore session, and
    # would warn of a block that its own side lacks. Comparing versions of timm is what embedcore is for: not a warning.
    compared_benchmark["machine_info"].pop("embedcore", None)
