"""The books of a run: which results it has, in the journals that keep them, and which it still needs."""

from __future__ import annotations

import contextlib
import datetime
import glob
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.plain import json_safe, one_line
from embedcore.results.journal import Journal, JournalContents, locked, read_journals
from embedcore.results.result import Result

FOLDER = "runs"
"""Of the journals, within the cache folder: ``RUN.jsonl``, and ``RUN.WORKER.jsonl`` of a worker of pytest-xdist."""

Key = tuple[str, str | None]
"""Model and fingerprint of the dataset."""


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
        self, folder: Path, header: Mapping[str, Any], models: Sequence[str], place: Place, *, resume: bool = False
    ) -> None:
        """`header` holds ``identity`` (what must be equal for a run to be continued), ``settings`` and ``dataset``.

        With `resume` the newest unfinished run of this identity is continued: its final results count as measured, all
        others are tried again. Raises UsageError, see `find_unfinished`, and where the journal cannot be written.
        """
        self.results: dict[Key, Result] = {}
        self.notices: list[str] = []
        """Lines that the summary has to show."""
        self._from_before: set[Key] = set()
        self._journal_whole = True
        run = place.new_run
        if resume:
            found, self.notices = find_unfinished(folder, header["identity"], place, models)
            if found is not None:
                run, contents = found
                self._take_over(contents, models)
        self.run = run
        self._journal = Journal(place.journal(folder, run), header, models=models)

    def _take_over(self, contents: JournalContents, models: Sequence[str]) -> None:
        last: dict[Key, Result] = {(result.model, result.dataset): result for result in contents.results}
        again = [result.status for result in last.values() if not result.final and result.model in models]
        self.results = {key: result for key, result in last.items() if result.final}
        self._from_before = set(self.results)
        known = {model for model, _ in self.results}
        line = f"resumed: {sum(model in known for model in models)} of {len(models)} results are from before"
        if contents.finished:
            line += ", from a run that was finished"
        if again:
            counts = ", ".join(f"{count} {status}" for status, count in Counter(again).items())
            line += f", {len(again)} {'is' if len(again) == 1 else 'are'} tried again ({counts})"
        self.notices.append(line)

    def from_before(self, key: Key) -> Result | None:
        """A result that is from before and was not asked for yet; asked once, it counts as one of this session."""
        if key not in self._from_before:
            return None
        self._from_before.discard(key)
        return self.results[key]

    def forget(self, key: Key, why: str) -> None:
        """Let a case be measured again."""
        del self.results[key]
        self.notices.append(f"{key[0]}: measured again, {why}")

    def keep(self, result: Result, test: str | None = None) -> None:
        """Write a result and the id of its test to the journal, unless it comes from there; on return it is on disk.

        Where the journal cannot be written the run goes on, and `notices` say that it cannot be resumed whole.
        """
        key = result.model, result.dataset
        if key in self.results:
            return
        self.results[key] = result
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


def find_runs(folder: Path, prefix: str = "") -> tuple[dict[str, JournalContents], list[str]]:
    """The runs of `folder` whose names begin with `prefix`, the newest first, and why journals were passed over.

    A journal whose process was killed before its header was whole holds nothing, and is passed over in silence.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(
        folder.glob(f"{glob.escape(prefix)}*.jsonl"), key=lambda path: path.stat().st_mtime_ns, reverse=True
    ):
        files.setdefault(path.name.partition(".")[0], []).append(path)
    runs, passed_over = {}, []
    for name, paths in files.items():
        begun = [path for path in paths if b"\n" in path.read_bytes()]
        try:
            if begun:
                runs[name] = read_journals(begun)
        except UsageError as error:
            passed_over.append(str(error))
    return runs, passed_over


def runs_in_use(folder: Path) -> frozenset[str]:
    """The runs of `folder` that a process is writing to."""
    found = set()
    for path in folder.glob("*.jsonl"):
        try:
            locked(path).release()
        except UsageError:
            found.add(path.name.partition(".")[0])
    return frozenset(found)


def find_unfinished(
    folder: Path, identity: Mapping[str, Any], place: Place, models: Sequence[str] = ()
) -> tuple[tuple[str, JournalContents] | None, list[str]]:
    """Name and contents of the newest unfinished run of this identity, or else of the newest finished one that lacks
    some of `models` and has others; also lines to tell.

    None where there is none and a new run may start. Raises UsageError where the newest run of all is unfinished and
    has another identity, naming what differs, and where another session is still writing to the run. An unfinished
    run that another has followed was given up: it stands in nobody's way; nor does one of another shard.
    """
    wanted = json_safe(identity)
    runs, notices = find_runs(folder)
    runs.pop(place.new_run, None)  # begun by another worker of this session
    alike = [(name, contents) for name, contents in runs.items() if contents.header.get("identity") == wanted]
    unfinished = [(name, contents) for name, contents in alike if not contents.finished]
    for name, contents in unfinished[:1]:
        if name in (runs_in_use(folder) if place.in_use is None else place.in_use):
            raise UsageError(f"run {folder / name} is in use by another process: wait for it, or end it")
        if contents.damaged:
            notices.append(f"run {folder / name}: {'; '.join(contents.damaged)}: measured again")
        return (name, contents), notices
    of_shard = ((name, run) for name, run in runs.items() if _identity(run).get("shard") == wanted.get("shard"))
    newest = next(of_shard, None)
    if newest is not None and not newest[1].finished:
        differing = differences(_identity(newest[1]), wanted)
        raise UsageError(
            f"--embed-resume: the newest run ({folder / newest[0]}) is unfinished and another one: "
            f"{'; '.join(differing)}. Run with its settings, or once without --embed-resume to give it up"
        )
    for name, contents in alike[:1]:
        known = set(contents.models) & set(models)
        if known and known < set(models) and name not in (place.in_use or ()):
            return (name, contents), notices
        if known:
            journal = min(folder.glob(f"{glob.escape(name)}*.jsonl"))
            notices.append(
                "--embed-resume: the newest run of these settings is finished and has all these models, so all are "
                f"measured anew; what it has found is shown by embedcore report {journal}"
            )
    return None, notices


def _identity(contents: JournalContents) -> Mapping[str, Any]:
    identity = contents.header.get("identity")
    return identity if isinstance(identity, dict) else {}


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
