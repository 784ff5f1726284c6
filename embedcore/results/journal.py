"""The journal: each result on disk before its test reports, one JSON line a case under a header line.

A line counts once its newline is written, and ends with a checksum of what it says. A process killed in the middle of
a line leaves a torn last line, which reading drops and a writer that continues the file cuts off. The header names the
models of the run, a line ``{"models": [...]}`` more of them. A last line ``{"finished": ...}`` says that each of them
has its result; a journal without it can be resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from embedcore.errors import UsageError
from embedcore.plain import json_safe
from embedcore.results.result import InvalidResultError, Result

FORMAT = 1
"""Written as ``journal`` into the header; another number cannot be read here."""

_SEAL = re.compile(rb'(.*), "crc32": "([0-9a-f]{8})"\}', re.DOTALL)


class Journal:
    """A journal open for writing, by one process at a time. Use it as a context manager, or call `close`."""

    def __init__(self, path: Path, descriptor: int, size: int, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = size
        self._lock = lock

    @classmethod
    def create(cls, path: Path, header: Mapping[str, object], *, models: Sequence[str] = ()) -> Journal:
        """A new journal at `path` whose first line holds `header` (identity, settings, dataset) and the run's `models`.

        Folders are made as needed. Raises UsageError if the file is there already or cannot be written.
        """
        lock = _locked(path)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:
            lock.release()
            raise UsageError(f"journal {path} is there already") from None
        except OSError as error:
            lock.release()
            raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
        journal = cls(path, descriptor, 0, lock)
        try:
            journal._write({"journal": FORMAT} | json_safe(header) | {"models": list(models)})
            _sync_folder(path.parent)
        except OSError as error:
            journal.close()
            path.unlink(missing_ok=True)
            raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
        return journal

    @classmethod
    def reopen(cls, path: Path) -> tuple[Journal, JournalContents]:
        """Continue the journal at `path`: its torn last line, if any, is cut off. Also gives what it holds.

        Raises UsageError if another process writes to it, or it cannot be read.
        """
        lock = _locked(path)
        try:
            contents = read_journal(path)
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
            journal = cls(path, descriptor, contents.whole_bytes, lock)
            journal._cut()
        except (UsageError, OSError) as error:
            lock.release()
            if isinstance(error, OSError):
                raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
            raise
        return journal, contents

    def add_models(self, models: Sequence[str]) -> None:
        """Note that the run has these models too. Raises OSError, see `append`."""
        self._write({"models": list(models)})

    def append(self, result: Result) -> None:
        """Write `result`; when this returns, the line is on the disk.

        Raises OSError where the disk is full, say; the journal is then as it was, and the next line may succeed.
        """
        self._write(result.to_json())

    def finish(self, when: str) -> None:
        """Note that every case of the run has its result; `when` is shown to people only. Raises OSError."""
        self._write({"finished": when})

    def close(self) -> None:
        """Close the file and let go of the lock."""
        os.close(self._descriptor)
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, line: Mapping[str, object]) -> None:
        left = sealed = _seal(line)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # what is left of the line is torn, and dropped by the next reader
                self._cut()
            raise
        self._size += len(sealed)

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size, os.SEEK_SET)


def _seal(line: Mapping[str, object]) -> bytes:
    # ASCII only, so that no reader can take a character of a reason for the end of a line.
    text = json.dumps(line, ensure_ascii=True, allow_nan=False).encode()
    return b'%s, "crc32": "%08x"}\n' % (text[:-1], zlib.crc32(text))


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
    models: tuple[str, ...]
    """All models of the run, measured or not."""
    results: tuple[Result, ...]
    """In the order written; a case that was measured twice is here twice, the later one last."""
    whole_bytes: int
    """Length of the file up to the end of its last whole line."""
    torn: bool
    """Whether a torn line follows, which is dropped here."""
    damaged: tuple[str, ...]
    """What is wrong with each whole line that cannot be read, which is dropped here: its case has no result."""
    finished: bool
    """Whether every case of the run has its result."""


def read_journal(path: Path) -> JournalContents:
    """Read the journal at `path`, without a torn last line and without lines that are damaged.

    Raises UsageError if there is no such file, it is not a journal, or its header is damaged.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error
    whole_bytes = raw.rfind(b"\n") + 1
    lines = raw[:whole_bytes].split(b"\n")[:-1]
    if not lines:
        raise UsageError(f"{path} is not a journal of embedcore: it has no whole header line")
    try:
        header = _unseal(lines[0])
        models = _names(header.pop("models", []))
    except ValueError as error:
        raise UsageError(f"{path} is not a journal of embedcore, or is damaged: line 1 {error}") from error
    if header.get("journal") != FORMAT:
        raise UsageError(f"{path} is not a journal that this embedcore can read: its header has no 'journal': {FORMAT}")
    results: list[Result] = []
    damaged: list[str] = []
    finished = False
    for number, line in enumerate(lines[1:], start=2):
        try:
            entry = _unseal(line)
            if "finished" in entry:
                finished = True
            elif "models" in entry:
                models += _names(entry["models"])
            else:
                results.append(Result.from_json(entry))
        except InvalidResultError as error:
            damaged.append(f"line {number}: {error}")
        except ValueError as error:
            damaged.append(f"line {number} {error}")
    return JournalContents(
        header=header,
        models=tuple(dict.fromkeys(models)),
        results=tuple(results),
        whole_bytes=whole_bytes,
        torn=whole_bytes < len(raw),
        damaged=tuple(damaged),
        finished=finished and not damaged,
    )


def _unseal(line: bytes) -> dict[str, Any]:
    """What a line says. Raises ValueError, worded to follow the line's number."""
    sealed = _SEAL.fullmatch(line)
    if sealed is None:
        raise ValueError("has no checksum")
    text = sealed[1] + b"}"
    if zlib.crc32(text) != int(sealed[2], 16):
        raise ValueError("does not fit its checksum")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("has something else than names for models")
    return value
