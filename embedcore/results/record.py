"""The record of a run: the one keeper of its results.

A record is fed with lines, the same ones wherever they come from: this process, a pytest-xdist worker (on its tests'
reports), or a journal. A line is a JSON object and contains one or more of

- header fields: ``run`` ``identity`` ``settings`` ``machine`` ``selection`` ``commit_info`` ``renamed`` ``noise``, and
  for time estimates ``costs`` {model: GMACs} and ``to_fetch`` [models whose weights were not on this machine];
- ``tests`` {id: model}: planned tests, each of which measures a model;
- ``datasets`` [blocks of the saved JSON];
- ``done`` [tests that have results from before the session was resumed];
- ``process`` (the fields of a `TimingProcess`) with ``timed`` [model, dataset]: a measured case was timed once more;
- ``race_stage`` (the fields of a `RaceStage`): what the race has found about a model;
- a result (the fields of `Result`) with ``test``, ``written`` (seconds since the epoch) and ``overhead_s``.

In the process that measures, `begin` opens the journal, and each line is written to it before the line is handed to the
report of its test.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from embedcore.errors import UsageError, option
from embedcore.plain import json_safe
from embedcore.results.estimate import costs_left, estimate_range, estimate_seconds, measured_costs
from embedcore.results.journal import Journal, Line, read_header, read_lines
from embedcore.results.leaderboard import by_headline
from embedcore.results.process import TimingProcess
from embedcore.results.race_stage import Key as StageKey
from embedcore.results.race_stage import RaceStage
from embedcore.results.ranking import Rankings, rank_if_possible, ranking_block
from embedcore.results.result import InvalidResultError, Result
from embedcore.results.runs import Key, Worker, done_tests, find_resumable
from embedcore.results.saved import benchmark_entry, embedcore_block

Seconds = tuple[float, float]
"""(least, most)"""

_HEADER = frozenset(
    ["run", "identity", "settings", "machine", "selection", "commit_info", "renamed", "noise", "costs", "to_fetch"]
)


class Entry(NamedTuple):
    """One measurement: the id of its test and the result."""

    test: str
    result: Result

    @property
    def key(self) -> Key:
        return self.result.model, self.result.dataset


class Record:
    """The results of one run, with its datasets, planned tests and settings."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.planned: dict[str, str] = {}
        """Tests that measure a model, reached or not: id to model."""
        self.datasets: dict[str, Mapping[str, Any]] = {}
        """Blocks of the saved JSON by fingerprint, the session's own dataset first."""
        self.entries: list[Entry] = []
        """All measurements in the order reported or written; a test that ran twice has two."""
        self.results: dict[Key, Result] = {}
        """The last result of each case."""
        self.race: dict[StageKey, RaceStage] = {}
        """The evidence of the race."""
        self.raced_out: set[str] = set()
        """Models that the race has stopped: their tests take no time."""
        self.warnings: list[str] = []
        """Lines for the summary."""
        self.damaged: list[str] = []
        """Descriptions of unreadable lines of the journals."""
        self.times: dict[Key, float] = {}
        """When the last result of each case was written, in seconds since the epoch."""
        self.parallel = 1
        """Number of cases that are measured at once for this process."""
        self._done_before: set[str] = set()
        self._overheads: list[float] = []
        self.workers: set[str] = set()
        """Names of the processes that have measured."""
        self._timed: dict[Key, list[TimingProcess]] = {}
        """Further timing processes, by case."""
        self._rankings: dict[str, tuple[list[Result], Rankings]] = {}
        # Only in the process that measures:
        self._journal: Journal | None = None
        self.journal_whole = True
        """Whether every line could be written to the journal."""
        self._outbox: list[Line] = []
        self._earlier: dict[Key, dict[str, Result]] = {}
        self._journalled: dict[str, Result] = {}
        """Results that the journal has before their tests report them, by test."""

    # Lines in

    def take(self, line: Line, worker: str = "") -> None:
        """Add the contents of a line. Raises InvalidResultError for a damaged one."""
        if not isinstance(tests := line.get("tests", {}), dict) or not all(isinstance(m, str) for m in tests.values()):
            raise InvalidResultError("'tests' does not map test ids to models")
        self.planned |= tests
        for block in line.get("datasets", ()):
            self.datasets[str(block.get("fingerprint"))] = block
        self._done_before |= set(line.get("done", ()))
        self.header |= {name: line[name] for name in _HEADER & line.keys()}
        if "model" in line:
            entry = self._with_timings(Entry(str(line.get("test") or ""), Result.from_json(line)))
            self.entries.append(entry)
            self.results[entry.key] = entry.result
            self.times[entry.key] = float(line.get("written") or 0.0)
            self.workers.add(worker)
            if isinstance(overhead := line.get("overhead_s"), float):
                self._overheads.append(overhead)
        if "timed" in line:
            self._take_process(line)
        if "race_stage" in line:
            self._take_stage(line)

    def _take_stage(self, line: Line) -> None:
        try:
            stage = msgspec.convert(line["race_stage"], RaceStage)
        except msgspec.ValidationError as error:
            raise InvalidResultError(f"a stage of the race: {error}") from error
        self.race[stage.key] = stage

    def _take_process(self, line: Line) -> None:
        try:
            key = msgspec.convert(line["timed"], tuple[str, str | None])
            process = msgspec.convert(line.get("process"), TimingProcess)
        except msgspec.ValidationError as error:
            raise InvalidResultError(f"a timing process: {error}") from error
        self._timed.setdefault(key, []).append(process)
        old = self.results.get(key)
        if old is None:  # in another worker's journal, which is read later
            return
        for number, entry in enumerate(self.entries):
            if entry.result is old:
                self.entries[number] = self._with_timings(entry)
                self.results[key] = self.entries[number].result

    def _with_timings(self, entry: Entry) -> Entry:
        """Return an entry whose result has its further timing processes, but none of an earlier measurement."""
        result = entry.result
        if not result.processes:
            return entry
        first = result.processes[0].started
        known = {process.started: process for process in (*result.processes, *self._timed.get(entry.key, ()))}
        processes = tuple(known[started] for started in sorted(known) if started >= first)
        return entry._replace(result=msgspec.structs.replace(result, processes=processes))

    # The process that measures

    def begin(self, folder: Path, header: Mapping[str, Any], worker: Worker, *, resume: bool = False) -> None:
        """Open this worker's journal in `folder`: of a new run, or with `resume` of an old one.

        `header`: a first line with ``identity`` (which must be equal for a run to be resumed) and ``tests``. Final
        results of a resumed run count as measured; the other cases are measured again. Raises UsageError as
        `find_resumable` does, and if the journal cannot be written.
        """
        planned: Mapping[str, str] = header.get("tests", {})
        run, written = worker.new_run, {}
        if resume:
            found, warnings = find_resumable(
                folder, header["identity"], worker, planned, header.get("settings", {}).get("processes", 1)
            )
            self.warnings += warnings
            if found is not None:
                run, before = found.name, read_record(found.journals)
                if before.damaged:
                    self.warnings.append(f"run {folder / run}: {'; '.join(before.damaged)}: measured again")
                self._resume(before, planned, finished=found.finished)
                written = before.planned
        line = {"run": run, **json_safe(header)}
        more = {test: model for test, model in planned.items() if test not in written}
        self._journal = Journal(worker.journal(folder, run), line, {"tests": more} if more else None)
        self.take(line)
        self._outbox = [line, {"done": sorted(self._done_before)}]

    def _resume(self, before: Record, planned: Mapping[str, str], *, finished: bool) -> None:
        self.race |= before.race
        models = set(planned.values())
        retried = [r.status for r in before.results.values() if not r.final and r.model in models]
        final = {key for key, result in before.results.items() if result.final}
        for entry in before.entries:
            if entry.result.final and entry.key in final:
                self._earlier.setdefault(entry.key, {})[entry.test] = entry.result
        results = ((test, key, True) for key, of_tests in self._earlier.items() for test in of_tests)
        self._done_before = set(done_tests(planned, results))
        # After a file was renamed its tests have new ids, and an old result cannot be assigned to one of them.
        renamed = {key[0] for key, of_tests in self._earlier.items() if not of_tests.keys() <= planned.keys()}
        self._done_before |= {test for test, model in planned.items() if model in renamed}
        line = f"resumed: {len(self._done_before)} of {len(planned)} results are from the earlier session"
        if finished:
            line += ", which was finished"
        if retried:
            counts = ", ".join(f"{count} {status}" for status, count in Counter(retried).items())
            line += f", {len(retried)} {'is' if len(retried) == 1 else 'are'} retried ({counts})"
        self.warnings.append(line)

    def earlier(self, key: Key, test: str) -> Result | None:
        """Return the case's result from before the session was resumed, once: a test that runs again measures again.

        It is the result of the same test, or of one that this session does not have.
        """
        results = self._earlier.get(key, {})
        if test in results:
            self._journalled[test] = results.pop(test)
            return self._journalled[test]
        return results.pop(next((other for other in results if other not in self.planned), ""), None)

    def failed_before(self, key: Key) -> bool:
        """Whether a final result from before the session was resumed says that the case cannot be measured."""
        return any(not result.ok and not result.race for result in self._earlier.get(key, {}).values())

    def discard(self, key: Key, test: str, why: str) -> None:
        """Have a case measured again because its earlier result is no longer valid."""
        self._journalled.pop(test, None)
        self._done_before.discard(test)
        self.warnings.append(f"{key[0]}: measured again, {why}")

    def keep(self, result: Result, test: str, overhead_s: float | None = None) -> None:
        """Write a result of this process to the journal, and queue its line for the test's report.

        `overhead_s`: seconds that the case took besides its measurement. A result from `earlier` or `keep_early` for
        the same test is in the journal already. If the journal cannot be written, the run continues with a warning.
        """
        line = _line_of(result, test, overhead_s)
        if self._journalled.pop(test, None) is not result:
            self._write(line)
        self._outbox.append(line)

    def keep_early(self, result: Result, test: str, overhead_s: float | None = None) -> None:
        """Write a result to the journal before its test begins, which passes it to `keep`."""
        self._write(_line_of(result, test, overhead_s))
        self._journalled[test] = result

    def add(self, line: Line) -> None:
        """Take a line of this process without a result, write it to the journal and queue it for the next report."""
        self.announce(line)
        self._write(line)

    def keep_stage(self, stage: RaceStage) -> None:
        """Take the evidence of the race on a model after a stage, and write it to the journal."""
        self.race[stage.key] = stage
        self._write({"race_stage": msgspec.to_builtins(stage)})

    def announce(self, line: Line) -> None:
        """Take a line of this process that only this session needs, and queue it for the next report."""
        self.take(line)
        self._outbox.append(line)

    def _write(self, line: Line) -> None:
        assert self._journal is not None
        try:
            self._journal.append(line)
        except OSError as error:
            if self.journal_whole:
                self.warnings.append(
                    f"the journal cannot be written ({error.strerror or error}): results are in the JSON and the "
                    f"report, but {option('resume', True)} will measure some again"
                )
            self.journal_whole = False

    def unsent(self) -> list[Line]:
        """Return the lines that no report has carried yet, and mark them as sent."""
        lines, self._outbox = self._outbox, []
        return lines

    def close(self) -> None:
        """Close the journal, if there is one."""
        if self._journal is not None:
            self._journal.close()

    # Queries

    def results_of(self, test: str) -> dict[Key, Result]:
        """Return the results of a test by case, also those that no report has carried yet."""
        unsent = [
            Entry(test, Result.from_json(line)) for line in self._outbox if "model" in line and line["test"] == test
        ]
        return {entry.key: entry.result for entry in (*self.entries, *unsent) if entry.test == test}

    @property
    def run(self) -> str:
        """Name of the run in the cache folder."""
        return str(self.header.get("run", ""))

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.header.get("settings") or {}

    @property
    def machine(self) -> Mapping[str, Any]:
        return self.header.get("machine") or {}

    @property
    def written(self) -> float:
        """When the last result was written, in seconds since the epoch; 0 without one."""
        return max(self.times.values(), default=0.0)

    @property
    def when(self) -> str | None:
        """Time of the last result, in the format of the saved JSON's ``datetime``."""
        if not self.written:
            return None
        return datetime.datetime.fromtimestamp(self.written, datetime.timezone.utc).isoformat(timespec="seconds")

    @property
    def done(self) -> frozenset[str]:
        """Tests with a result, from now or from before the session was resumed."""
        return frozenset(self._done_before | {entry.test for entry in self.entries})

    @property
    def left(self) -> list[str]:
        """The model of each planned test that is not done."""
        done = self.done
        return [model for test, model in self.planned.items() if test not in done]

    @property
    def unreached(self) -> list[str]:
        """The model of each planned test that has not reported a result."""
        reached = {entry.test for entry in self.entries}
        return [model for test, model in self.planned.items() if test not in reached]

    @property
    def used_datasets(self) -> dict[str, Mapping[str, Any]]:
        """Blocks of the datasets that have results, by fingerprint; of all while there is no result."""
        used = {dataset for _, dataset in self.results}
        return {key: block for key, block in self.datasets.items() if key in used} or self.datasets

    def results_on(self, fingerprint: str | None) -> list[Result]:
        """Return the last result of each case on a dataset, measured or not."""
        return [result for (_, dataset), result in self.results.items() if dataset == fingerprint]

    def leader(self, fingerprint: str | None) -> Result | None:
        """Return the best result so far on a dataset; None if nothing was measured on it."""
        rows = by_headline(self.results_on(fingerprint))
        return rows[0].result if rows else None

    def remaining(self) -> tuple[int, Seconds | None]:
        """Return how many cases are left, and the time they take with all workers; None before there is a basis."""
        left = self.left
        costs = self._costs(left)
        found = estimate_range(self._measured(), costs)
        if found is None:
            return len(left), None
        overhead, workers = len(costs) * self._overhead, max(self.parallel, len(self.workers))
        return len(left), ((found[0] + overhead) / workers, (found[1] + overhead) / workers)

    def expected_s(self, test: str) -> float | None:
        """Return the seconds that a test is expected to take, 0 if nothing is known yet; None if it is done."""
        model = self.planned.get(test)
        if model is None or test in self._done_before:
            return None
        if model in self.raced_out:
            return 0.0
        return (estimate_seconds(self._measured(), self._costs([model])) or 0.0) + self._overhead

    @property
    def _overhead(self) -> float:
        return sum(self._overheads) / len(self._overheads) if self._overheads else 0.0

    def _costs(self, models: Iterable[str]) -> list[float | None]:
        costs = self.header.get("costs", {})
        to_fetch = frozenset(self.header.get("to_fetch", ()))
        models = [model for model in models if model not in self.raced_out]
        return costs_left(((model, costs.get(model)) for model in models), list(self.results.values()), to_fetch)

    def _measured(self) -> list[tuple[float, float]]:
        earlier = [result for of_tests in self._earlier.values() for result in of_tests.values()]
        return measured_costs([*earlier, *self.results.values()], self.header.get("costs", {}).get)

    def rankings(self) -> dict[str, Rankings]:
        """Return how certain the ranks on each dataset are, by fingerprint; recomputed only after new results."""
        for fingerprint, block in self.used_datasets.items():
            measured = [result for result in self.results_on(fingerprint) if result.ok]
            if fingerprint not in self._rankings or self._rankings[fingerprint][0] != measured:
                self._rankings[fingerprint] = measured, rank_if_possible(measured, block)
        return {fingerprint: self._rankings[fingerprint][1] for fingerprint in self.used_datasets}

    def block(self, selection: Mapping[str, Any] | None = None, *, ranked: bool = True) -> dict[str, Any]:
        """Return the ``embedcore`` block of the saved JSON; `selection`: that of the header by default."""
        datasets = list(self.used_datasets.values())
        excluded = [result for result in self.results.values() if not result.ok]
        block = embedcore_block(settings=self.settings, datasets=datasets, excluded=excluded)
        block |= {
            "selection": dict(self.header.get("selection") or {} if selection is None else selection),
            "unreached": list(dict.fromkeys(self.unreached)),
            "renamed": self.header.get("renamed") or {},
            "noise": self.header.get("noise"),
        }
        return block | ({"ranking": ranking_block(self.rankings())} if ranked else {})

    def data(self) -> dict[str, Any]:
        """Return the JSON that the run's session would have saved, without the ranking; the last result of a case."""
        tests = {entry.key: entry.test for entry in self.entries}
        return {
            "machine_info": {"embedcore": dict(self.machine)},
            "commit_info": self.header.get("commit_info") or {},
            "benchmarks": [benchmark_entry(result, tests[key]) for key, result in self.results.items() if result.ok],
            "datetime": datetime.datetime.fromtimestamp(self.written, datetime.timezone.utc).isoformat(),
            "version": importlib.metadata.version("pytest-benchmark"),
            "embedcore": self.block(ranked=False),
        }


def read_record(paths: Iterable[Path]) -> Record:
    """Read the journals of one run, without torn or damaged lines.

    Raises UsageError if one cannot be read, is not a journal, or has a damaged header.
    """
    record = Record()
    lines: list[tuple[float, int, Line]] = []
    for path in paths:
        header = read_header(path)
        if header is None:
            raise UsageError(f"{path} is not a journal of embedcore: it has no whole header line")
        record.take(header)
        for number, line in read_lines(path):
            if isinstance(line, ValueError):
                record.damaged.append(f"line {number} {line}")
            else:
                written = line.get("written")
                lines.append((written if isinstance(written, float) else 0.0, number, line))
    for _, number, line in sorted(lines, key=lambda each: each[0]):
        try:
            record.take(line)
        except (InvalidResultError, AttributeError, TypeError) as error:
            record.damaged.append(f"line {number}: {error}")
    return record


def _line_of(result: Result, test: str, overhead_s: float | None) -> dict[str, Any]:
    line = result.to_json() | {"test": test, "written": time.time()}
    return line if overhead_s is None else line | {"overhead_s": overhead_s}
