"""The journal: each result on disk before its test reports, one JSON line a case under a header line.

A line counts once its newline is written, and ends with a checksum of what it says. A process killed in the middle of
a line leaves a torn last line, which reading drops and a writer that continues the file cuts off. The header names the
models of the run, a line ``{"models": [...]}`` more of them. A run has one journal for each process that measures.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from embedcore.errors import UsageError
from embedcore.files import sealed, unsealed
from embedcore.plain import json_safe
from embedcore.results.result import InvalidResultError, Result

FORMAT = 2
"""Written as ``journal`` into the header; another number cannot be read here."""


class Journal:
    """A journal open for writing, by one process at a time."""

    def __init__(self, path: Path, header: Mapping[str, object], *, models: Sequence[str] = ()) -> None:
        """Begin the journal at `path` with `header` (identity, settings, dataset) and the run's `models`; or go on with
        the one that is there, whose torn last line, if any, is cut off.

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
                    self._write({"journal": FORMAT} | json_safe(header) | {"models": list(models)})
                    _sync_folder(path.parent)
                elif more := [model for model in models if model not in contents.models]:
                    self._write({"models": more})
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


@dataclass(frozen=True)
class JournalContents:
    """What the journals of a run held when they were read."""

    header: Mapping[str, Any]
    models: tuple[str, ...]
    """All models of the run, measured or not."""
    results: tuple[Result, ...]
    """In the order written; a case that was measured twice is here twice, the later one last."""
    whole_bytes: int
    """Length of the (last) file up to the end of its last whole line."""
    damaged: tuple[str, ...]
    """What is wrong with each whole line that cannot be read, which is dropped here: its case has no result."""
    datasets: tuple[Mapping[str, Any], ...] = ()
    """What the saved JSON says of each dataset beside the header's."""
    tests: Mapping[str, str] = field(default_factory=dict)
    """The id of the test of each model, as far as it was written."""
    written: float = 0.0
    """When the last result was, in seconds since the epoch."""

    @property
    def finished(self) -> bool:
        """Whether each model of the run has a result that another try could not better."""
        last = {(result.model, result.dataset): result for result in self.results}
        final = {model for model, _ in last} - {model for (model, _), result in last.items() if not result.final}
        return bool(self.models) and final >= set(self.models)


def read_journals(paths: Iterable[Path]) -> JournalContents:
    """Read the journals of one run as one. Raises UsageError as `read_journal` does."""
    written: list[tuple[float, Result]] = []
    models: list[str] = []
    damaged: list[str] = []
    datasets: list[Mapping[str, Any]] = []
    tests: dict[str, str] = {}
    header: Mapping[str, Any] = {}
    whole_bytes = 0
    for path in paths:
        header, named, lines, whole_bytes = _whole_lines(path)
        models += named
        for number, line in enumerate(lines, start=2):
            try:
                entry = unsealed(line)
                if "models" in entry:
                    models += _names(entry["models"])
                elif "datasets" in entry:
                    datasets += filter(lambda block: isinstance(block, dict), entry["datasets"])
                else:
                    written.append((float(entry.get("written") or 0.0), Result.from_json(entry)))
                    if isinstance(entry.get("test"), str):
                        tests[written[-1][1].model] = entry["test"]
            except InvalidResultError as error:
                damaged.append(f"line {number}: {error}")
            except (ValueError, TypeError) as error:
                damaged.append(f"line {number} {error}")
    written.sort(key=lambda line: line[0])
    results = tuple(result for _, result in written)
    return JournalContents(
        header=header,
        models=tuple(dict.fromkeys(models)),
        results=results,
        whole_bytes=whole_bytes,
        damaged=tuple(damaged),
        datasets=tuple(datasets),
        tests=tests,
        written=written[-1][0] if written else 0.0,
    )


def read_journal(path: Path) -> JournalContents:
    """Read the journal at `path`, without a torn last line and without lines that are damaged.

    Raises UsageError if there is no such file, it is not a journal, or its header is damaged.
    """
    return read_journals([path])


def _whole_lines(path: Path) -> tuple[dict[str, Any], list[str], list[bytes], int]:
    """The header, the models that it names, the other whole lines, and where these end."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error
    whole_bytes = raw.rfind(b"\n") + 1
    lines = raw[:whole_bytes].split(b"\n")[:-1]
    if not lines:
        raise UsageError(f"{path} is not a journal of embedcore: it has no whole header line")
    try:
        header = unsealed(lines[0])
        models = _names(header.pop("models", []))
    except ValueError as error:
        raise UsageError(f"{path} is not a journal of embedcore, or is damaged: line 1 {error}") from error
    if header.get("journal") != FORMAT:
        raise UsageError(f"{path} is not a journal that this embedcore can read: its header has no 'journal': {FORMAT}")
    return header, models, lines[1:], whole_bytes


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("has something else than names for models")
    return value
