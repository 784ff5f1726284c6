"""The journal: each result on disk before its test reports, one JSON line a case under a header line.

A line counts once its newline is written. A process killed in the middle of a line leaves a torn last line, which
reading drops and a writer that continues the file cuts off. A last line ``{"finished": …}`` says that no case of the
run was left out; a journal without it can be resumed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import filelock

from embedcore.errors import UsageError
from embedcore.results.plain import json_safe
from embedcore.results.result import InvalidResultError, Result

FORMAT = 1
"""Written as ``journal`` into the header; another number cannot be read here."""


class Journal:
    """A journal open for writing, by one process at a time. Use it as a context manager, or call `close`."""

    def __init__(self, path: Path, stream: BinaryIO, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._stream = stream
        self._lock = lock

    @classmethod
    def create(cls, path: Path, header: Mapping[str, object]) -> Journal:
        """A new journal at `path` whose first line holds `header` (identity, settings, dataset).

        Folders are made as needed. Raises UsageError if the file is there already or cannot be written.
        """
        lock = _locked(path)
        try:
            stream = path.open("xb")
        except FileExistsError:
            lock.release()
            raise UsageError(f"journal {path} is there already") from None
        except OSError as error:
            lock.release()
            raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
        journal = cls(path, stream, lock)
        journal._write({"journal": FORMAT} | json_safe(header))
        _sync_folder(path.parent)
        return journal

    @classmethod
    def reopen(cls, path: Path) -> tuple[Journal, JournalContents]:
        """Continue the journal at `path`: its torn last line, if any, is cut off. Also gives what it holds.

        Raises UsageError if another process writes to it, or it cannot be read.
        """
        lock = _locked(path)
        try:
            contents = read_journal(path)
            stream = path.open("r+b")
        except (UsageError, OSError) as error:
            lock.release()
            if isinstance(error, OSError):
                raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
            raise
        stream.truncate(contents.whole_bytes)
        stream.seek(contents.whole_bytes)
        return cls(path, stream, lock), contents

    def append(self, result: Result) -> None:
        """Write `result`; when this returns, the line is on the disk."""
        self._write(result.to_json())

    def finish(self, when: str) -> None:
        """Note that every case of the run has its result; `when` is shown to people only."""
        self._write({"finished": when})

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._stream.close()
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, line: Mapping[str, object]) -> None:
        # ASCII only, so that no reader can take a character of a reason for the end of a line.
        self._stream.write(json.dumps(line, ensure_ascii=True, allow_nan=False).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _locked(path: Path) -> filelock.BaseFileLock:
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
    """Make a new file's name durable too, where the system lets a folder be opened for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class JournalContents:
    """What a journal held when it was read."""

    header: Mapping[str, Any]
    results: tuple[Result, ...]
    """In the order written; a case that was measured twice is here twice, the later one last."""
    whole_bytes: int
    """Length of the file up to the end of its last whole line."""
    torn: bool
    """Whether a torn line follows, which is dropped here."""
    finished: bool
    """Whether every case of the run has its result."""


def read_journal(path: Path) -> JournalContents:
    """Read the journal at `path`, without a torn last line.

    Raises UsageError if there is no such file, it is not a journal, or one of its whole lines cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error
    whole_bytes = raw.rfind(b"\n") + 1
    lines = raw[:whole_bytes].split(b"\n")[:-1]
    if not lines:
        raise UsageError(f"{path} is not a journal of embedcore: it has no whole header line")
    header = _object(path, 1, lines[0])
    if header.get("journal") != FORMAT:
        raise UsageError(f"{path} is not a journal that this embedcore can read: its header has no 'journal': {FORMAT}")
    entries = [(number, _object(path, number, line)) for number, line in enumerate(lines[1:], start=2)]
    results = tuple(_result(path, number, entry) for number, entry in entries if "finished" not in entry)
    return JournalContents(
        header=header,
        results=results,
        whole_bytes=whole_bytes,
        torn=whole_bytes < len(raw),
        finished=any("finished" in entry for _, entry in entries),
    )


def _result(path: Path, number: int, entry: Mapping[str, Any]) -> Result:
    try:
        return Result.from_json(entry)
    except InvalidResultError as error:
        raise UsageError(f"journal {path}, line {number}: {error}") from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"journal {path}, line {number} is not JSON: the file is damaged") from error
    if not isinstance(value, dict):
        raise UsageError(f"journal {path}, line {number} is not a JSON object: the file is damaged")
    return value
