"""The runs in a cache folder: their journals, which of them are in use, and which one to resume."""

from __future__ import annotations

import contextlib
import datetime
import glob
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedcore.errors import UsageError, option
from embedcore.files import is_sealed
from embedcore.plain import differences, json_safe
from embedcore.results.estimate import STARTING_S
from embedcore.results.journal import locked
from embedcore.results.result import Result, Status, is_final
from embedcore.results.run_index import IndexedRun, RunIndex

FOLDER = "runs"
"""Folder of the journals in the cache folder: ``RUN.jsonl``, or ``RUN.WORKER.jsonl`` of a pytest-xdist worker."""

Key = tuple[str, str | None]
"""A case: model and fingerprint of the dataset."""


@dataclass(frozen=True)
class Worker:
    """One process of a session that measures."""

    new_run: str
    """Name of the session's run if it resumes none; the same for all its workers."""
    name: str = ""
    """pytest-xdist's name of the worker, such as ``gw0``; "" in a session of one process."""
    in_use: frozenset[str] | None = None
    """Runs that other sessions were writing to when the session began; None: find out when needed."""
    slot: int = 0
    """Number among the workers that run at the same time."""

    @classmethod
    def alone(cls) -> Worker:
        """Return the worker of a session of one process."""
        return cls(run_name(time.time(), os.getpid()))

    def journal(self, folder: Path, run: str) -> Path:
        """Return the path of this worker's journal."""
        return folder / f"{run}{'.' * bool(self.name)}{self.name}.jsonl"


def run_name(began: float, pid: int) -> str:
    """Return the name of a run begun by process `pid` at `began`, in seconds since the epoch.

    >>> run_name(0.25, 7)
    '19700101T000000250000-7'
    """
    return f"{datetime.datetime.fromtimestamp(began, datetime.timezone.utc):%Y%m%dT%H%M%S%f}-{pid}"


def journals_of(folder: Path, prefix: str = "") -> dict[str, list[Path]]:
    """Return the journals of each run in `folder` whose name begins with `prefix`, most recently written run first."""
    paths = folder.glob(f"{glob.escape(prefix)}*.jsonl")
    files: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        files.setdefault(path.name.partition(".")[0], []).append(path)
    return files


def runs_in_use(folder: Path, prefix: str = "") -> frozenset[str]:
    """Return the runs in `folder` whose name begins with `prefix` and that a process is writing to."""
    found = set()
    for lock in folder.glob(f"{glob.escape(prefix)}*.jsonl.lock"):  # a journal without a lock file has no writer
        try:
            locked(lock.with_suffix("")).release()
        except UsageError:
            found.add(lock.name.partition(".")[0])
    return frozenset(found)


def done_tests(planned: Mapping[str, str], results: Iterable[tuple[str, Key, bool]]) -> frozenset[str]:
    """Return the `planned` tests (id to model) whose results are all final.

    `results`: test id, case and whether the result is final, in the order written; a later result of the same test and
    case replaces an earlier one.

    >>> sorted(done_tests({"t[a]": "a", "t[b]": "b"}, [("t[a]", ("a", "x"), False), ("t[a]", ("a", "x"), True)]))
    ['t[a]']
    """
    last = {(test, key): final for test, key, final in results}
    outcomes: dict[str, bool] = {}
    for (test, _), final in last.items():
        outcomes[test] = outcomes.get(test, True) and final
    return frozenset(test for test in planned if outcomes.get(test, False))


class _Line(msgspec.Struct):
    """The fields of a line that show whether its run is finished; decoding skips scores and verdicts."""

    model: str = ""
    dataset: Any = None
    status: Status = "ok"
    unreachable: bool = False
    written: float = 0.0
    test: str = ""
    tests: dict[str, str] = {}
    processes: list[msgspec.Raw] = []
    timed: tuple[str, Any] | None = None


_LINES = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class Outline:
    """Progress of a run."""

    planned: Mapping[str, str]
    """Test id to model."""
    cases: int
    """Number of cases with a result."""
    finished: bool
    """Whether every planned test has a final result."""
    processes: int | None
    """Minimum number of fresh processes in which a case has been timed; None if none has been timed."""


def outline(paths: Iterable[Path]) -> Outline:
    """Return the progress of the run with these journals, much faster than reading all of them. Raises OSError."""
    planned: dict[str, str] = {}
    lines: list[_Line] = []
    timed: Counter[Key] = Counter()
    for path in paths:
        with path.open("rb") as file:
            for raw in file:
                if raw.endswith(b"\n") and is_sealed(raw):
                    with contextlib.suppress(msgspec.DecodeError):
                        line = _LINES.decode(raw)
                        planned |= line.tests
                        lines += [line] * bool(line.model)
                        timed.update([line.timed] if line.timed else ())
    lines.sort(key=lambda line: line.written)
    results = [(line.test, (line.model, line.dataset), is_final(line.status, line.unreachable)) for line in lines]
    finished = bool(planned) and len(done_tests(planned, results)) == len(planned)
    first = {(line.model, line.dataset): len(line.processes) for line in lines}  # of the last measurement
    processes = min((count + timed[key] for key, count in first.items() if count), default=None)
    return Outline(planned, len({key for _, key, _ in results}), finished, processes)


class TimedCase(msgspec.Struct):
    """The fields of a result's line that show how long its case took."""

    model: str = ""
    engine: str | None = None
    precision: str | None = None
    gmacs: float | None = None
    durations: list[float] = []
    images_per_s: dict[str, float | None] | None = None
    identity: dict[str, Any] = {}
    """In the first line of a journal."""


_TIMED = msgspec.json.Decoder(TimedCase)


def timed_cases(path: Path) -> Iterator[tuple[Mapping[str, Any], TimedCase]]:
    """Yield each undamaged line of a journal, including the header, with the identity of its run. Raises OSError."""
    identity: Mapping[str, Any] = {}
    with path.open("rb") as lines:
        for number, raw in enumerate(lines):
            with contextlib.suppress(msgspec.DecodeError):
                line = _TIMED.decode(raw)
                if number == 0:
                    identity = line.identity
                yield identity, line


def case_cost(case: TimedCase | Result, images: int, processes: int) -> tuple[float, float] | None:
    """Return GMACs and seconds of a case, as if measured on `images`; None if it was not timed.

    `processes`: number of processes in which the case is timed.
    """
    speeds = case.images_per_s or {}
    speed = speeds.get("end_to_end") or speeds.get("forward")
    if not (case.gmacs and speed and case.durations):
        return None
    return case.gmacs, images / speed + processes * (STARTING_S + sum(case.durations))


def earlier_costs(folder: Path, identity: Mapping[str, Any], images: int, processes: int) -> list[tuple[float, float]]:
    """Return (GMACs, seconds) of the cases of the newest run like this one, as if measured on `images`.

    `identity`: what must be equal, such as machine and engine; `processes`: number of processes in which each case is
    timed. Empty without such a run, or if its journals cannot be read. Damaged lines are skipped; only the first line
    of another run is read.
    """
    with contextlib.suppress(OSError):  # an estimate is not worth an error
        for paths in journals_of(folder).values():
            found = [cost for path in paths for cost in _costs_in(path, identity, images, processes)]
            if found:
                return found
    return []


def _costs_in(path: Path, identity: Mapping[str, Any], images: int, processes: int) -> Iterator[tuple[float, float]]:
    for found, case in timed_cases(path):
        if any(found.get(name) != value for name, value in identity.items()):
            return
        cost = case_cost(case, images, processes)
        if cost is not None:
            yield cost


@dataclass(frozen=True)
class Resumed:
    """A run to continue."""

    name: str
    journals: tuple[Path, ...]
    finished: bool


def find_resumable(
    folder: Path, identity: Mapping[str, Any], worker: Worker, planned: Iterable[str] = (), processes: int = 1
) -> tuple[Resumed | None, list[str]]:
    """Return the newest unfinished run with this identity, or else the newest finished one that has some, but not all,
    of the `planned` tests; also warnings for the summary.

    A run whose cases were timed in fewer than `processes` processes is unfinished. None means that a new run may start.
    An unfinished run with another identity is an error if it is the newest, and counts as abandoned if others followed;
    runs of other shards are ignored.

    Raises UsageError if the newest run is unfinished and has another identity, naming the differences, and if another
    session is still writing to the run.
    """
    wanted, ours = json_safe(identity), set(planned)
    runs: dict[str, IndexedRun] = {}
    warnings: list[str] = []
    index, journals = RunIndex(folder), journals_of(folder)
    for name, paths in journals.items():
        try:
            run = index.run(name, paths)
        except UsageError as error:
            warnings.append(str(error))
            continue
        if run.journals and name != worker.new_run:  # which another worker of this session may have begun
            runs[name] = run

    def outlined(name: str) -> IndexedRun:
        run = runs[name]
        if run.finished is None:
            progress = outline(_paths(folder, run))
            index.note(run, progress.finished, progress.processes)
        return run

    same = [name for name, run in runs.items() if run.identity == wanted]
    unfinished = next((name for name in same if not outlined(name).is_complete(processes)), None)
    newest = next((name for name, run in runs.items() if run.identity.get("shard") == wanted.get("shard")), None)
    newest_is_finished = newest is None or unfinished is not None or outlined(newest).finished
    index.keep(journals)
    if unfinished is not None:
        if unfinished in (runs_in_use(folder, unfinished) if worker.in_use is None else worker.in_use):
            raise UsageError(f"run {folder / unfinished} is in use by another process: wait for it or stop it")
        return Resumed(unfinished, _paths(folder, runs[unfinished]), finished=False), warnings
    if newest is not None and not newest_is_finished:
        raise UsageError(
            f"{option('resume', True)}: the newest run ({folder / newest}) is unfinished and has other settings: "
            f"{'; '.join(differences(runs[newest].identity, wanted))}. Use its settings; or, to discard that run, "
            "start once without it"
        )
    for name in same[:1]:
        finished = _paths(folder, runs[name])
        known = outline(finished).planned.keys() & ours
        if known and known < ours and name not in (worker.in_use or ()):
            return Resumed(name, finished, finished=True), warnings
        if known:
            warnings.append(
                f"{option('resume', True)}: the newest run with these settings is finished and contains all these "
                f"models; all are measured again; its results: embedcore report {min(finished)}"
            )
    return None, warnings


def _paths(folder: Path, run: IndexedRun) -> tuple[Path, ...]:
    return tuple(folder / name for name in run.journals)
