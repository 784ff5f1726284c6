"""The journal: each result on disk before its test reports, one JSON line a case under a header line.

A line counts once its newline is written, and ends with a checksum of what it says. A process killed in the middle of
a line leaves a torn last line, which reading drops and a writer that continues the file cuts off. The header names the
planned tests of the run, ``{"tests": {id: model}}``, and further lines of that form more of them. A run has one journal
for each process that measures.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import msgspec

from embedcore.errors import UsageError
from embedcore.files import is_sealed, sealed, unsealed
from embedcore.plain import json_safe
from embedcore.results.result import InvalidResultError, Result, Status, is_final

FORMAT = 2
"""Written as ``journal`` into the header; another number cannot be read here."""


class Journal:
    """A journal open for writing, by one process at a time."""

    def __init__(self, path: Path, header: Mapping[str, object], *, planned: Mapping[str, str] | None = None) -> None:
        """Begin the journal at `path` with `header` (identity, settings, dataset) and the `planned` tests of the run,
        test id to model; or go on with the one that is there, whose torn last line, if any, is cut off.

        Folders are made as needed. Raises UsageError if another process writes to it, or it cannot be read or written.
        """
        with contextlib.ExitStack() as undo:
            self._lock = locked(path)
            undo.callback(self._lock.release)
            try:
                begun = path.exists() and b"\n" in path.read_bytes()
                contents = read_journal(path) if begun else None
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
                undo.callback(os.close, self._descriptor)
                self._size = contents.whole_bytes if contents is not None else 0
                if contents is None:
                    undo.callback(path.unlink, missing_ok=True)
                self._cut()
                if contents is None:
                    self._write({"journal": FORMAT} | json_safe(header) | {"tests": dict(planned or {})})
                    _sync_folder(path.parent)
                elif more := {test: model for test, model in (planned or {}).items() if test not in contents.planned}:
                    self._write({"tests": more})
            except OSError as error:
                raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
            undo.pop_all()

    def append(self, result: Result, test: str | None = None) -> None:
        """Write `result` and the id of its `test`; when this returns, the line is on the disk.

        Raises OSError where the disk is full, say; the journal is then as it was, and the next line may succeed.
        """
        self._write(result.to_json() | {"written": time.time(), "test": test})

    def note_dataset(self, block: Mapping[str, object]) -> None:
        """Write what the saved JSON says of a dataset that is not the header's. Raises OSError."""
        self._write({"datasets": [json_safe(block)]})

    def close(self) -> None:
        """Close the file and let go of the lock."""
        os.close(self._descriptor)
        self._lock.release()

    def _write(self, line: Mapping[str, object]) -> None:
        whole = rest = sealed(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # what is left of the line is torn, and dropped by the next reader
                self._cut()
            raise
        self._size += len(whole)

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size, os.SEEK_SET)


def locked(path: Path) -> filelock.BaseFileLock:
    """The lock of the journal at `path`, taken. Raises UsageError where another process has it, or it cannot be had."""
    lock = filelock.FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(f"journal {path} is in use by another process: wait for it, or end it") from None
    except OSError as error:
        raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
    return lock


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


Key = tuple[str, str | None]
"""Model and fingerprint of the dataset."""


@dataclass(frozen=True)
class JournalContents:
    """What the journals of a run held when they were read."""

    header: Mapping[str, Any]
    planned: Mapping[str, str]
    """All tests of the run that measure a model, measured or not: id to model. An older journal names models only, and
    each stands for its test."""
    results: tuple[Result, ...]
    """In the order written; a case that was measured twice is here twice, the later one last."""
    whole_bytes: int
    """Length of the (last) file up to the end of its last whole line."""
    damaged: tuple[str, ...]
    """What is wrong with each whole line that cannot be read, which is dropped here: its case has no result."""
    datasets: tuple[Mapping[str, Any], ...] = ()
    """What the saved JSON says of each dataset beside the header's."""
    tests: tuple[str, ...] = ()
    """The id of the test that each of `results` comes from; "" where it was not written."""
    written: float = 0.0
    """When the last result was, in seconds since the epoch."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the planned tests, each once."""
        return tuple(dict.fromkeys(self.planned.values()))

    @property
    def done(self) -> frozenset[str]:
        """The planned tests that have results, none of which another try could better."""
        return done_tests(
            self.planned,
            (
                ((result.model, result.dataset), test, result.final)
                for result, test in zip(self.results, self.tests, strict=True)
            ),
        )

    @property
    def finished(self) -> bool:
        """Whether each planned test is done."""
        return bool(self.planned) and len(self.done) == len(self.planned)


def done_tests(planned: Mapping[str, str], results: Iterable[tuple[Key, str, bool]]) -> frozenset[str]:
    """The `planned` tests (id to model) that have results, all of them final.

    `results`: case, id of its test and whether it is final, in the order written; a later result of the same case and
    test replaces the earlier one.

    >>> sorted(done_tests({"t[a]": "a", "t[b]": "b"}, [(("a", "x"), "t[a]", False), (("a", "x"), "t[a]", True)]))
    ['t[a]']
    """
    # In an older journal models stand for tests, so what is planned is the model.
    last = {(test if test in planned else key[0], key): final for key, test, final in results}
    outcomes: dict[str, bool] = {}
    for (test, _), final in last.items():
        outcomes[test] = outcomes.get(test, True) and final
    return frozenset(test for test in planned if outcomes.get(test, False))


def read_journals(paths: Iterable[Path]) -> JournalContents:
    """Read the journals of one run as one. Raises UsageError as `read_journal` does."""
    written: list[tuple[float, Result, str]] = []
    planned: dict[str, str] = {}
    damaged: list[str] = []
    datasets: list[Mapping[str, Any]] = []
    header: Mapping[str, Any] = {}
    whole_bytes = 0
    for path in paths:
        header, named, lines, whole_bytes = _whole_lines(path)
        planned |= named
        for number, line in enumerate(lines, start=2):
            try:
                entry = unsealed(line)
                if (more := _planned(entry)) is not None:
                    planned |= more
                elif "datasets" in entry:
                    datasets += filter(lambda block: isinstance(block, dict), entry["datasets"])
                else:
                    when, test = float(entry.get("written") or 0.0), str(entry.get("test") or "")
                    written.append((when, Result.from_json(entry), test))
            except InvalidResultError as error:
                damaged.append(f"line {number}: {error}")
            except (ValueError, TypeError) as error:
                damaged.append(f"line {number} {error}")
    written.sort(key=lambda line: line[0])
    return JournalContents(
        header=header,
        planned=planned,
        results=tuple(result for _, result, _ in written),
        whole_bytes=whole_bytes,
        damaged=tuple(damaged),
        datasets=tuple(datasets),
        tests=tuple(test for *_, test in written),
        written=written[-1][0] if written else 0.0,
    )


def read_journal(path: Path) -> JournalContents:
    """Read the journal at `path`, without a torn last line and without lines that are damaged.

    Raises UsageError if there is no such file, it is not a journal, or its header is damaged.
    """
    return read_journals([path])


class _Line(msgspec.Struct):
    """What of a line tells whether its run is finished; scores and verdicts, nearly all of it, are passed over."""

    model: str = ""
    dataset: Any = None
    """Fingerprint; in the header the whole block."""
    status: Status = "ok"
    unreachable: bool = False
    written: float = 0.0
    test: str | None = None
    tests: dict[str, str] = {}
    models: list[str] = []


_LINES = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class Outline:
    """How far a run is."""

    results: int
    """Cases that have a result."""
    finished: bool
    """See `JournalContents.finished`."""


def outline(paths: Iterable[Path]) -> Outline:
    """Return how far the run with these journals is, in a fraction of the time and memory of `read_journals`.

    Raises OSError.
    """
    planned: dict[str, str] = {}
    lines: list[_Line] = []
    for path in paths:
        with path.open("rb") as file:
            for raw in file:
                if raw.endswith(b"\n") and is_sealed(raw):
                    with contextlib.suppress(msgspec.DecodeError):
                        line = _LINES.decode(raw)
                        planned |= line.tests or {model: model for model in line.models}
                        lines += [line] * bool(line.model)
    lines.sort(key=lambda line: line.written)
    results = [((line.model, line.dataset), line.test or "", is_final(line.status, line.unreachable)) for line in lines]
    finished = bool(planned) and len(done_tests(planned, results)) == len(planned)
    return Outline(len({key for key, *_ in results}), finished)


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of the journal at `path`; None where its process was killed before that was whole.

    Raises UsageError as `read_journal` does.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error
    return _header(path, first)[0] if first.endswith(b"\n") else None


def _whole_lines(path: Path) -> tuple[dict[str, Any], dict[str, str], list[bytes], int]:
    """The header, the tests that it plans, the other whole lines, and where these end."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error
    whole_bytes = raw.rfind(b"\n") + 1
    lines = raw[:whole_bytes].split(b"\n")[:-1]
    if not lines:
        raise UsageError(f"{path} is not a journal of embedcore: it has no whole header line")
    header, planned = _header(path, lines[0])
    return header, planned, lines[1:], whole_bytes


def _header(path: Path, line: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The header and the tests that it plans."""
    try:
        header = unsealed(line)
        planned = _planned(header) or {}
    except ValueError as error:
        raise UsageError(f"{path} is not a journal of embedcore, or is damaged: line 1 {error}") from error
    if header.get("journal") != FORMAT:
        raise UsageError(f"{path} is not a journal that this embedcore can read: its header has no 'journal': {FORMAT}")
    return {key: value for key, value in header.items() if key not in ("tests", "models")}, planned


def _planned(entry: Mapping[str, Any]) -> dict[str, str] | None:
    """The tests that a line plans; None where it plans none. Raises ValueError."""
    tests, models = entry.get("tests"), entry.get("models")
    if tests is None and models is None:
        return None
    if isinstance(models, list) and all(isinstance(name, str) for name in models):
        tests = dict(zip(models, models, strict=True))
    if not isinstance(tests, dict) or not all(isinstance(model, str) for model in tests.values()):
        raise ValueError("has something else than names for its tests")
    return tests
