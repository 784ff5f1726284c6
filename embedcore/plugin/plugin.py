"""The plugin of a session that has tests of ours: its state, and the hooks that drive it."""

from __future__ import annotations

import contextlib
import functools
import traceback
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.interrupts import interrupts_held, terminations_as_interrupts
from embedcore.plain import counted, printable_lines
from embedcore.plugin import cases, summary
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.machine import shared_cards
from embedcore.plugin.progress import Position, ProgressReporter, position
from embedcore.plugin.saving import check_saving, commit_info, complete, save_json, saved_json
from embedcore.plugin.stash import ON_REPORTS
from embedcore.plugin.terminal import Terminal, showable
from embedcore.plugin.workers import end_before_first_test, end_in_test, reports_notes, send_to_controller, worker_of
from embedcore.results import neighbours
from embedcore.results.neighbours import NeighbourStore
from embedcore.results.record import Record
from embedcore.results.result import Result
from embedcore.results.run import run_of

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.plugin.claiming import Claiming
    from embedcore.plugin.gate import Gate
    from embedcore.plugin.measuring import Measuring
    from embedcore.plugin.options import Options
    from embedcore.zoo.own_models import OwnModel


class Plugin:
    """One session: its options, collected tests, bench, record and progress."""

    def __init__(self, config: pytest.Config, options: Options, budget: Budget) -> None:
        self.config, self.options, self.budget = config, options, budget
        self.record = Record()
        self.terminal = Terminal(config)
        self.progress = ProgressReporter(config, self.terminal, self.record)
        self.is_worker = hasattr(config, "workerinput")
        self.is_controller = config.pluginmanager.has_plugin("dsession")
        """Whether this process is pytest-xdist's controller."""
        # From collection:
        self.collected = 0
        """Number of cases before any was deselected."""
        self.usage_error = ""
        self.no_cases = ""
        """Message that all cases are in other shards, or with other workers."""
        self._other_shards: list[str] = []
        # In a process that measures:
        self.measuring: Measuring | None = None
        self.claiming: Claiming | None = None
        self._notes: list[str] = []
        """Shown before the first case; in a worker, sent to the controller."""
        self._until_reported = contextlib.ExitStack()
        # At the end:
        self.gate: Gate | None = None
        self.stopped: tuple[str, int] | None = None
        """Why the workers ended early, and the exit code."""
        self.errors: list[str] = []
        self._saved = False
        """Whether pytest-benchmark has saved our block."""
        self._session: pytest.Session | None = None
        self.live_page: Any = None
        if options.report is not None and not self.is_worker:
            from embedcore.plugin.pages import LivePage

            self.live_page = LivePage(options.report, self.record, self.terminal.write_line)

    @functools.cached_property
    def own_models(self) -> Mapping[str, OwnModel]:
        """The user's models in the roster, by name. Raises UsageError."""
        from embedcore.zoo.roster import own_models

        return own_models(self.options.roster)

    def open_gate(self) -> None:
        """Read the baseline and the limits of the comparison. Raises UsageError."""
        from embedcore.plugin.gate import Gate

        if self.options.compare is None:
            raise UsageError("--embed-fail-on needs --embed-compare BASE, the run to compare with")
        storage = Path(str(self.config.getoption("benchmark_storage", "") or ".benchmarks").removeprefix("file://"))
        self.gate = Gate(self.options, storage=storage, folder=self.config.invocation_params.dir)

    # Collection

    def prepare(self, items: list[pytest.Item]) -> None:
        """Set the timer of replayed tests, deselect the cases of other shards and sort the rest by cost; in place."""
        cases.replay_timer(items)
        if self.usage_error or not any(map(cases.is_case, items)):
            return
        shard = self.options.shard
        if shard:
            others = cases.split_off(items, shard, self.own_models)
            self._other_shards = sorted(set(map(cases.model_of, others)))
            if others:
                self.config.hook.pytest_deselected(items=others)
            if others and not any(map(cases.is_case, items)):
                self.no_cases = f"shard {shard} is empty: all cases ({len(others)}) are in other shards"
        if self.options.order == "cost":
            cases.sort_by_cost(items, self.own_models)

    @pytest.hookimpl(tryfirst=True)  # before pytest-xdist reports that this worker is ready
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._session = session
        if self.usage_error:
            end_before_first_test(session, self.usage_error, pytest.ExitCode.USAGE_ERROR)
            return
        items = [item for item in session.items if cases.needs_session(item)]
        if self.config.option.collectonly or not items:
            return
        # pytest-benchmark warns if a failed or interrupted case has nothing to time; its report already shows that.
        self.config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")
        try:
            self._start({item.nodeid: cases.model_of(item) for item in items if cases.is_case(item)})
        except BudgetSpent:
            why = f"{summary.budget_words(self.budget)} before the first case: it counts from the start of pytest"
            end_before_first_test(session, why, pytest.ExitCode.INTERRUPTED)
        except EmbedcoreError as error:
            end_before_first_test(session, printable_lines(str(error)), pytest.ExitCode.USAGE_ERROR)

    def _start(self, tests: Mapping[str, str]) -> None:
        """Load the images and open the record of the ``tests``, id to model. Raises UsageError, BudgetSpent."""
        from embedcore.plugin.checks import check_options
        from embedcore.plugin.claiming import Claiming, join
        from embedcore.plugin.measuring import Measuring
        from embedcore.plugin.start import begin, bench_of, dataset_of, distractors_of, header_of

        options, worker = self.options, worker_of(self.config)
        workers, several = getattr(self.config, "workerinput", {}).get("workercount", 1), bool(worker.name)
        check_saving(self.config)
        check_options(options, several_workers=several)
        bench = bench_of(options, self.own_models, worker)
        self.config.add_cleanup(bench.disconnect)
        with self.progress.reporting(Position("looking at the images")) as stages:
            within = self.budget.within(stages)
            looking = functools.partial(within, "")
            dataset = dataset_of(options, looking)
            bench.distractors = distractors_of(options, looking)
            machines = bench.connect(dataset, within)
            header = header_of(
                options, dataset, bench.distractors, tests, self.own_models, several_workers=several, machines=machines
            )
            selection = options.selection(self.config)
            if options.shard:
                selection = {**selection, "other_shards": self._other_shards}
            header |= {"selection": selection, "commit_info": commit_info(self.config)}
            if options.claim is not None:
                claims = join(options.claim, header, worker.new_run)
                worker = claims.worker
                self.claiming = Claiming(claims, self.record, self.budget, options, self._say)
                self.config.pluginmanager.register(self.claiming, "embedcore-claiming")
            plan = begin(self.record, bench, dataset, options, header, worker, workers=len(machines) or workers)
        self.measuring = Measuring(
            bench, {dataset.fingerprint: dataset}, options, self.record, self.budget, self.progress
        )
        if self.terminal.verbosity >= 0 and reports_notes(self.config):
            shared = shared_cards(options.where, workers)
            distractors = [bench.distractors.note(dataset)] if bench.distractors else []
            planned = plan.lines() if plan.notable else []
            if machines:
                planned = [f"{counted(len(machines), 'worker')} on {header['identity']['machine']}"]
            self._notes = [*dataset.notes, *distractors, *shared, *planned]

    # One case

    def measure(self, model: str, dataset: Dataset, test: str) -> Result:
        """Measure a model on a dataset in the test of that id, or return its result from before the resume.

        The result is in the journal on return. Ends the session if the images or the cache folder cannot be used, and
        when ``--embed-budget`` is used up.
        """
        assert self._session is not None and self.measuring is not None
        with self.progress.reporting(position(self.record, model, dataset.fingerprint)) as stages:
            try:
                self._until_reported.close()  # of this test's last run, if it runs again
                measured = self.measuring.measure(model, dataset, test, self.budget.within(stages))
                # Journal, JSON and leaderboards then contain the same cases. pytest-benchmark fails on a benchmark that
                # was interrupted before its first round, and saves none.
                self._until_reported.enter_context(interrupts_held())
                self.record.keep(measured.result, test, measured.overhead_s)
            except UsageError as error:  # from an image or the cache folder, so every other case would fail too
                end_in_test(self._session, printable_lines(str(error)), pytest.ExitCode.USAGE_ERROR)
            except BudgetSpent:
                message = summary.budget_message(self.budget, self.record, self.options)
                end_in_test(self._session, message, pytest.ExitCode.INTERRUPTED)
        return measured.result

    # The loop

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:  # after the terminal's line on the collected tests
        if not self.is_worker:
            self.terminal.notes(self._notes)
            self._notes = []
        if self.measuring is not None and self.options.race:
            self._race(self.measuring)
        with terminations_as_interrupts() if self.claiming is not None else contextlib.nullcontext():
            try:
                outcome = yield
            finally:
                if self.measuring is not None:
                    self.measuring.bench.close()
            if self.claiming is not None:
                self.no_cases = self.claiming.no_cases
            if self.measuring is not None:
                self.measuring.finish()
        return outcome

    def _say(self, line: str) -> None:
        self.terminal.notes([line] if self.terminal.verbosity >= 0 else [])

    def _race(self, measuring: Measuring) -> None:
        """Find the models that cannot be among the best. Ends the session as `measure` does."""
        assert self._session is not None
        if self._session.testsfailed and not self.config.option.continue_on_collection_errors:
            return  # pytest runs no test
        try:
            measuring.race(self._say)
        except BudgetSpent:
            message = summary.budget_message(self.budget, self.record, self.options)
            end_before_first_test(self._session, message, pytest.ExitCode.INTERRUPTED)
        except EmbedcoreError as error:
            end_before_first_test(self._session, printable_lines(str(error)), pytest.ExitCode.USAGE_ERROR)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        following = nextitem if nextitem is not None and cases.is_case(nextitem) else None
        if self.measuring is not None:
            is_due = following is not None and following.nodeid not in self.record.done
            self.measuring.following = cases.model_of(following) if following is not None and is_due else None
        with contextlib.ExitStack() as self._until_reported:
            outcome = yield
        if self.measuring is not None and following is not None:
            expected_s = self.record.expected_s(following.nodeid)
            if expected_s is not None and self.budget.left() <= expected_s:
                item.session.shouldstop = summary.budget_message(self.budget, self.record, self.options)
        return outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self.measuring is None:
            return report
        lines = self.record.unsent()
        if lines or self._notes:
            setattr(report, ON_REPORTS, {"lines": lines, "notes": self._notes})
            self._notes = []
        measured = any("model" in line for line in lines)
        if measured and report.skipped and isinstance(report.longrepr, tuple):
            # -rs must show the benchmark, not the line in this package that skips
            path, number, _ = item.reportinfo()
            report.longrepr = str(path), (number or 0) + 1, report.longrepr[2]
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        with self.progress.status_hidden():
            results = self.take(report)
            yield
            self.show(report, results)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logstart(self) -> Generator[None, None, None]:  # with -v the terminal writes here
        with self.progress.status_hidden():
            yield

    def take(self, report: pytest.TestReport) -> list[Result]:
        """Add the lines of a report to the record; return their results."""
        carried = getattr(report, ON_REPORTS, {})
        before = len(self.record.entries)
        for line in carried.get("lines", ()):
            self.record.take(line, getattr(report, "worker_id", ""))
        return [entry.result for entry in self.record.entries[before:]]

    def show(self, report: pytest.TestReport, results: Sequence[Result]) -> None:
        """Show notes and progress and update the page after a report, whose own line is already written."""
        notes = getattr(report, ON_REPORTS, {}).get("notes", [])
        self.terminal.notes(notes)
        self.progress.show(results)
        if self.is_controller:
            self.progress.advance(results)
        if results and self.live_page is not None:
            self.live_page.update()

    @pytest.hookimpl(tryfirst=True)  # before the terminal's, which shows where the interrupt hit
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # Some bytecode has no line number since Python 3.11; pytest crashes when an interrupt hits it.
        lines = [line for _, line in traceback.walk_tb(excinfo.tb)]
        if None in lines:
            excinfo.traceback = type(excinfo.traceback)(
                entry for entry, line in zip(excinfo.traceback, lines, strict=True) if line is not None
            )

    # The end

    def take_from_worker(self, sent: Mapping[str, Any]) -> None:
        """Keep the data that a pytest-xdist worker sent as it ended."""
        self.record.warnings = list(dict.fromkeys([*self.record.warnings, *sent.get("warnings", ())]))
        for line in sent.get("lines", ()):
            self.record.take(line)
        self.stopped = sent.get("stopped", self.stopped)
        self.no_cases = sent.get("no_cases", self.no_cases)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._session = session
        self.progress.close()
        self.record.close()
        if self.measuring is not None:
            send_to_controller(self.config, warnings=self.record.warnings, lines=self.record.unsent())
        if self.no_cases:
            send_to_controller(self.config, no_cases=self.no_cases)
            if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
                session.exitstatus = pytest.ExitCode.OK
        if self.stopped is not None:
            session.exitstatus = self.stopped[1]
        if not self._has_block or self.is_worker or self.config.option.collectonly:
            return
        for act in (self._save, self._prune, self._write_report, self._judge):
            try:
                act()
            except EmbedcoreError as error:
                # Raising here would skip the remaining steps; the summary shows the error.
                self.errors.append(printable_lines(str(error)))
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
        if session.exitstatus == pytest.ExitCode.OK:
            if summary.nothing_measured(self.record):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            elif self.gate is not None:
                session.exitstatus = self.gate.exit_code

    @property
    def _has_block(self) -> bool:
        """Whether the session's JSON gets our block; also for an empty shard, so that no shard is missing."""
        return bool(self.record.results or self.no_cases)

    def _save(self) -> None:
        if not self._saved:
            save_json(self.config, self.record.entries, self.terminal.write_line)

    def _prune(self) -> None:
        """Remove the neighbours of models that no report would show."""
        if self.record.run:
            store = NeighbourStore(self.options.cache_folder / neighbours.FOLDER, self.record.run)
            store.prune(self.record.results.values(), self.options.gallery)

    def _write_report(self) -> None:
        if self.options.report is not None:
            from embedcore.plugin.pages import write_report

            write_report(self.options, self.record, self.measuring)

    def _judge(self) -> None:
        if self.gate is not None and self.record.results and not summary.nothing_measured(self.record):
            new = run_of(saved_json(self.config, self.record.entries), Path("this session"))
            settles, left = not self.options.is_quick_look, self.budget.left()
            self.gate.judge(new, settles=settles, seconds=left, write_line=self.terminal.write_line)
            self.errors += [printable_lines(self.gate.unjudged)] if self.gate.unjudged else []

    @pytest.hookimpl(wrapper=True, trylast=True)  # below pytest-benchmark's tables, above pytest's short summary
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode
    ) -> Generator[None, Any, Any]:
        shown: Any = []
        try:
            shown = yield
        except Exception as error:
            # pytest-benchmark has no public name for it. In a session without results it is not ours to handle.
            if type(error).__name__ != "PerformanceRegression" or not self.record.results:
                raise
            # Re-raised, it would end the session with a traceback. pytest-benchmark has listed the regressions above.
            self.errors.append(f"--benchmark-compare-fail: {error}")
            if self._session is not None:
                self._session.exitstatus = pytest.ExitCode.TESTS_FAILED
        finally:
            self._summarise(terminalreporter, exitstatus)
        return shown

    def _summarise(self, reporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode) -> None:
        if self.record.results:
            reporter.section("embedcore: leaderboards")
            for text in summary.leaderboard_lines(self.record, self.terminal.width, self.options.report):
                reporter.write_line(text)
            measured = sum(result.ok for result in self.record.results.values())
            if summary.hides_table(self.config, measured):
                reporter.write_line(f"pytest-benchmark's table of {measured} rows is left out: -v shows it")
            self._show_verdict(reporter)
        if exitstatus != pytest.ExitCode.USAGE_ERROR and (line := summary.unreached_line(self.record)):
            reporter.write_line(self.terminal.wrapped(line))
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.collected:
            option = self.config.option
            line = summary.nothing_selected(self.collected, str(option.keyword), str(option.markexpr))
            reporter.write_line(self.terminal.wrapped(line))
        if self.no_cases:
            reporter.write_line(f"embedcore: {self.no_cases}")
        for line in [*([self.stopped[0]] if self.stopped else []), *self.errors]:
            reporter.write_line(f"ERROR: {line}", red=True)

    def _show_verdict(self, reporter: pytest.TerminalReporter) -> None:
        if self.gate is not None:
            reporter.section("embedcore: compared with the saved run")
            for text in self.gate.lines(self.terminal.width):
                reporter.write_line(showable(text))
        if nothing := summary.nothing_measured(self.record):
            reporter.write_line(f"ERROR: {nothing}", red=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        if self.is_worker and self.measuring is not None:
            # pytest-benchmark warns, in the middle of the dots, that it is off under pytest-xdist. We measure there.
            warnings.filterwarnings("ignore", "Benchmarks are automatically disabled because xdist")

    # pytest-benchmark

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_benchmark_group_stats(self, benchmarks: Sequence[Any]) -> list[Any] | None:
        """Return no groups, and so no table, if the table would bury the leaderboards."""
        return [] if self.record.results and summary.hides_table(self.config, len(benchmarks)) else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        if self._has_block:
            self._saved = True
            selection = {**self.options.selection(self.config), **(self.record.header.get("selection") or {})}
            output_json["embedcore"] = self.record.block(selection)
            complete(output_json["benchmarks"], self.record)

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        if self._has_block:
            machine_info["embedcore"] = dict(self.record.machine)
