"""The books of a run: which results it has, in the journals that keep them, and which it still needs."""

from __future__ import annotations

import contextlib
import datetime
import glob
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.plain import json_safe, one_line
from embedcore.results.journal import (
    Journal,
    JournalContents,
    Key,
    done_tests,
    locked,
    outline,
    read_header,
    read_journals,
)
from embedcore.results.result import Result

FOLDER = "runs"
"""Of the journals, within the cache folder: ``RUN.jsonl``, and ``RUN.WORKER.jsonl`` of a worker of pytest-xdist."""


@dataclass(frozen=True)
class Place:
    """Which of several processes of one session this is."""

    new_run: str
    """Name of the run that this session begins if it continues none; the same in all its workers."""
    worker: str = ""
    """Of pytest-xdist, such as ``gw0``."""
    in_use: frozenset[str] | None = None
    """Runs that other sessions were writing to when this one began; None: find out when it is needed."""
    slot: int = 0
    """Number among the workers that run now."""

    @classmethod
    def alone(cls) -> Place:
        """That of a session of one process."""
        return cls(run_name(time.time(), os.getpid()))

    def journal(self, folder: Path, run: str) -> Path:
        return folder / f"{run}{'.' * bool(self.worker)}{self.worker}.jsonl"


def run_name(began: float, pid: int) -> str:
    """The name of the run of a session that process ``pid`` began at a time in seconds since the epoch.

    >>> run_name(0.25, 7)
    '19700101T000000250000-7'
    """
    return f"{datetime.datetime.fromtimestamp(began, datetime.timezone.utc):%Y%m%dT%H%M%S%f}-{pid}"


class Books:
    """The results of a run so far. A result is in its journal before its test reports."""

    def __init__(
        self, folder: Path, header: Mapping[str, Any], planned: Mapping[str, str], place: Place, *, resume: bool = False
    ) -> None:
        """`header` holds ``identity`` (what must be equal for a run to be continued), ``settings`` and ``dataset``;
        `planned`: the tests of this session that measure a model, id to model.

        With `resume` the newest unfinished run of this identity is continued: its final results count as measured, all
        others are tried again. Raises UsageError, see `find_unfinished`, and where the journal cannot be written.
        """
        self.results: dict[Key, Result] = {}
        """The last result of each case."""
        self.notices: list[str] = []
        """Lines that the summary has to show."""
        self.done: set[str] = set()
        """The planned tests that have a result, be it from before."""
        self._planned = planned
        self._from_before: dict[Key, dict[str, Result]] = {}
        """Final results that were not asked for yet, by case and test."""
        self._given: Result | None = None
        """The one of them that was asked for last, if it is in the journal under the same test."""
        self._journal_whole = True
        run = place.new_run
        if resume:
            found, self.notices = find_unfinished(folder, header["identity"], place, planned)
            if found is not None:
                run, contents = found
                self._take_over(contents)
        self.run = run
        self._journal = Journal(place.journal(folder, run), header, planned=planned)

    def _take_over(self, contents: JournalContents) -> None:
        last: dict[Key, Result] = {(result.model, result.dataset): result for result in contents.results}
        models = set(self._planned.values())
        again = [result.status for result in last.values() if not result.final and result.model in models]
        self.results = {key: result for key, result in last.items() if result.final}
        for result, test in zip(contents.results, contents.tests, strict=True):
            if result.final and (key := (result.model, result.dataset)) in self.results:
                self._from_before.setdefault(key, {})[test] = result
        final = ((key, test, True) for key, of_tests in self._from_before.items() for test in of_tests)
        self.done = set(done_tests(self._planned, final))
        # Tests that have another id since, as when a file was renamed: which of its tests a result was of is not known.
        renamed = {key[0] for key, of_tests in self._from_before.items() if not of_tests.keys() <= self._planned.keys()}
        self.done |= {test for test, model in self._planned.items() if model in renamed}
        line = f"resumed: {len(self.done)} of {len(self._planned)} results are from before"
        if contents.finished:
            line += ", from a run that was finished"
        if again:
            counts = ", ".join(f"{count} {status}" for status, count in Counter(again).items())
            line += f", {len(again)} {'is' if len(again) == 1 else 'are'} tried again ({counts})"
        self.notices.append(line)

    def from_before(self, key: Key, test: str) -> Result | None:
        """The result of a case that is from before, of the same test or of one that this session has not.

        It is given once: a test that runs again measures again.
        """
        results = self._from_before.get(key, {})
        if test in results:
            self._given = results.pop(test)
            return self._given
        return results.pop(next((other for other in results if other not in self._planned), ""), None)

    def forget(self, key: Key, test: str, why: str) -> None:
        """Let the test of a case measure again."""
        del self.results[key]
        self.done.discard(test)
        self.notices.append(f"{key[0]}: measured again, {why}")

    def keep(self, result: Result, test: str = "") -> None:
        """Write a result and the id of its test to the journal, unless it comes from there; on return it is on disk.

        Where the journal cannot be written the run goes on, and `notices` say that it cannot be resumed whole.
        """
        key = result.model, result.dataset
        self.results[key] = result
        if test in self._planned:
            self.done.add(test)
        if result is self._given:
            return
        try:
            self._journal.append(result, test)
        except OSError as error:
            if self._journal_whole:
                self.notices.append(
                    f"the journal cannot be written ({error.strerror or error}): results are in the JSON and the "
                    "report, but --embed-resume will measure some again"
                )
            self._journal_whole = False

    def note_dataset(self, block: Mapping[str, Any]) -> None:
        """Keep what the saved JSON says of one more dataset, for who reads the journal."""
        with contextlib.suppress(OSError):  # the next result tells that the journal cannot be written
            self._journal.note_dataset(block)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def journals_of(folder: Path, prefix: str = "") -> dict[str, list[Path]]:
    """The journals of each run of `folder` whose name begins with `prefix`, the run last written to first."""
    paths = folder.glob(f"{glob.escape(prefix)}*.jsonl")
    files: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        files.setdefault(path.name.partition(".")[0], []).append(path)
    return files


def find_runs(folder: Path, prefix: str = "") -> tuple[dict[str, JournalContents], list[str]]:
    """The runs of `folder` whose names begin with `prefix`, the newest first, and why journals were passed over.

    A journal whose process was killed before its header was whole holds nothing, and is passed over in silence.
    """
    runs, passed_over = {}, []
    for name, paths in journals_of(folder, prefix).items():
        try:
            if begun := [path for path in paths if read_header(path) is not None]:
                runs[name] = read_journals(begun)
        except UsageError as error:
            passed_over.append(str(error))
    return runs, passed_over


def runs_in_use(folder: Path) -> frozenset[str]:
    """The runs of `folder` that a process is writing to."""
    found = set()
    for lock in folder.glob("*.jsonl.lock"):  # who writes holds it, so a journal without one is not asked
        try:
            locked(lock.with_suffix("")).release()
        except UsageError:
            found.add(lock.name.partition(".")[0])
    return frozenset(found)


def find_unfinished(
    folder: Path, identity: Mapping[str, Any], place: Place, planned: Mapping[str, str] | None = None
) -> tuple[tuple[str, JournalContents] | None, list[str]]:
    """Name and contents of the newest unfinished run of this identity, or else of the newest finished one that lacks
    some of the `planned` tests and has others; also lines to tell.

    None where there is none and a new run may start. Raises UsageError where the newest run of all is unfinished and
    has another identity, naming what differs, and where another session is still writing to the run. An unfinished
    run that another has followed was given up: it stands in nobody's way; nor does one of another shard.

    Reads the header of each journal, an outline of those of this identity, and the whole of one run.
    """
    wanted, ours = json_safe(identity), set(planned or ())
    runs: dict[str, tuple[dict[str, Any], list[Path]]] = {}
    notices: list[str] = []
    for name, paths in journals_of(folder).items():
        try:
            headers = {path: header for path in paths if (header := read_header(path)) is not None}
        except UsageError as error:
            notices.append(str(error))
            continue
        if headers and name != place.new_run:  # which another worker of this session may have begun
            theirs = next(iter(headers.values())).get("identity")
            runs[name] = theirs if isinstance(theirs, dict) else {}, list(headers)
    alike = [name for name, (theirs, _) in runs.items() if theirs == wanted]
    unfinished = next((name for name in alike if not outline(runs[name][1]).finished), None)
    if unfinished is not None:
        if unfinished in (runs_in_use(folder) if place.in_use is None else place.in_use):
            raise UsageError(f"run {folder / unfinished} is in use by another process: wait for it, or end it")
        contents = read_journals(runs[unfinished][1])
        if contents.damaged:
            notices.append(f"run {folder / unfinished}: {'; '.join(contents.damaged)}: measured again")
        return (unfinished, contents), notices
    newest = next((name for name, (theirs, _) in runs.items() if theirs.get("shard") == wanted.get("shard")), None)
    if newest is not None and not outline(runs[newest][1]).finished:
        differing = differences(runs[newest][0], wanted)
        raise UsageError(
            f"--embed-resume: the newest run ({folder / newest}) is unfinished and another one: "
            f"{'; '.join(differing)}. Run with its settings, or once without --embed-resume to give it up"
        )
    for name in alike[:1]:
        contents = read_journals(runs[name][1])
        known = set(contents.planned) & ours
        if known and known < ours and name not in (place.in_use or ()):
            return (name, contents), notices
        if known:
            notices.append(
                "--embed-resume: the newest run of these settings is finished and has all these models, so all are "
                f"measured anew; what it has found is shown by embedcore report {min(runs[name][1])}"
            )
    return None, notices


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """One phrase for each entry in which two identities differ.

    >>> differences({"timm": "1.0.15", "seed": 0}, {"timm": "1.0.31", "seed": 0})
    ['timm 1.0.15, now 1.0.31']
    """
    keys = dict.fromkeys([*theirs, *ours])
    return [
        f"{key} {one_line(str(theirs.get(key)))[:60]}, now {one_line(str(ours.get(key)))[:60]}"
        for key in keys
        if theirs.get(key) != ours.get(key)
    ]
