"""The hooks of every pytest session where embedcore is installed; they activate the plugin when it is needed.

A session without tests of ours pays for reading the options and nothing else: this module and what it imports at the
top import only the standard library and pytest.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest

from embedcore.errors import EmbedcoreError
from embedcore.plain import printable_lines
from embedcore.plugin import cases, fixtures, stash
from embedcore.plugin.budget import Budget
from embedcore.plugin.options import Options, add_options, check_names
from embedcore.plugin.workers import Workers


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_load_initial_conftests(args: list[str]) -> None:
    check_names(args)  # before argparse, whose error would suggest no name


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{cases.FAMILY_MARK}(slug): the model's family on the leaderboards.")
    config.addinivalue_line("markers", "embed_harness: a benchmark of the harness's own speed.")
    config.pluginmanager.register(fixtures, "embedcore-fixtures")
    config.pluginmanager.register(Activator(config), Activator.NAME)


class Activator:
    """The part of the plugin in every session: options, start time, and the hooks that activate the rest."""

    NAME = "embedcore-activator"

    def __init__(self, config: pytest.Config) -> None:
        self.options = Options.from_pytest_config(config)
        self.budget = Budget.of_session(self.options.budget, config)
        self.workers = Workers()
        self._config = config

    def activate(self) -> Any:
        """Return the session's `Plugin`, registered on the first call: as soon as a test of ours is known."""
        if stash.PLUGIN not in self._config.stash:
            from embedcore.plugin.plugin import Plugin

            plugin = self._config.stash[stash.PLUGIN] = Plugin(self._config, self.options, self.budget)
            self._config.pluginmanager.register(plugin, "embedcore-session")
        return self._config.stash[stash.PLUGIN]

    def pytest_sessionstart(self) -> None:
        compares = (self.options.compare, self.options.fail_on) != (None, None)
        if not compares or hasattr(self._config, "workerinput") or self._config.option.collectonly:
            return
        try:
            self.activate().open_gate()
        except EmbedcoreError as error:
            raise pytest.UsageError(printable_lines(str(error))) from error

    @pytest.hookimpl(trylast=True)  # after the project's hooks, which may parametrize a test with similar arguments
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if not cases.wants_models(metafunc):
            return
        plugin = self.activate()
        parameters: list[Any] = []
        try:
            if not self._config.option.collectonly:
                self.options.check_paths()
                if self.options.isolation == "process":
                    from embedcore.forkserver import forkserver_context, start_surely

                    start_surely(forkserver_context)  # it imports torch and timm while this process does
            parameters = cases.model_parameters(self.options)
            # Torch and timm are hundreds of thousands of permanent objects. Garbage collections, also those that pytest
            # runs at the end, would traverse them again and again: a third of the time to collect all cases.
            gc.freeze()
        except EmbedcoreError as error:
            # Raised here it would be one of many collection errors; raised after collection it is a usage error.
            plugin.usage_error = printable_lines(str(error))
        plugin.collected += len(parameters)
        metafunc.parametrize(cases.MODEL_ARGUMENT, parameters, indirect=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if any(map(cases.is_ours, items)):
            self.activate().prepare(items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send a new pytest-xdist worker the facts of the session that it needs."""
        in_use: frozenset[str] = frozenset()
        if self.options.resume:  # before workers of this session write to one
            from embedcore.results.runs import FOLDER, runs_in_use

            in_use = runs_in_use(self.options.cache_folder / FOLDER)
        node.workerinput[stash.OF_WORKERS] = self.workers.begin(node.gateway.id, self.budget.began, in_use)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Receive the data that a pytest-xdist worker sends as it ends."""
        self.workers.end(getattr(getattr(node, "gateway", None), "id", ""))
        sent = getattr(node, "workeroutput", {}).get(stash.OF_WORKERS)
        if sent:
            self.activate().take_from_worker(sent)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # The controller of pytest-xdist collects no tests: the first report of ours activates it.
        if hasattr(report, stash.ON_REPORTS) and stash.PLUGIN not in self._config.stash:
            plugin = self.activate()
            plugin.show(report, plugin.take(report))  # registered too late for this very call


def options_of(config: pytest.Config) -> Options:
    """Return the options of a session, whether or not it has tests of ours."""
    activator: Any = config.pluginmanager.get_plugin(Activator.NAME)
    options: Options = activator.options
    return options


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(compared_benchmark: dict[str, Any]) -> None:
    # pytest-benchmark compares before collection, when it is not known yet that this is an embedcore session, and
    # would warn of a block that its own side lacks. Comparing versions of timm is the purpose, so it is no warning.
    compared_benchmark["machine_info"].pop("embedcore", None)
