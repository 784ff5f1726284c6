"""The journal: the lines of a run on disk, each written before its test reports.

The first line is the header; each further line is a result, more datasets or more planned tests (see
`embedcore.results.record`). A line counts once its newline is written, and ends with a checksum. A process that is
killed in the middle of a line leaves a torn last line, which readers drop and the next writer cuts off. A run has one
journal for each process that measures.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from embedcore.errors import UsageError
from embedcore.files import sealed, unsealed

FORMAT = 3
"""The header's ``journal``; journals with another number cannot be read."""

Line = dict[str, Any]


class Journal:
    """A journal open for writing, by one process at a time."""

    def __init__(self, path: Path, header: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> None:
        """Create the journal at `path` with `header`, or continue an existing one without its torn last line.

        `more`: a line to add to a journal that is continued. Folders are created as needed. Raises UsageError if
        another process writes to the journal, or if it cannot be read or written.
        """
        with contextlib.ExitStack() as undo:
            self._lock = locked(path)
            undo.callback(self._lock.release)
            try:
                raw = path.read_bytes() if path.exists() else b""
                if begun := b"\n" in raw:
                    _checked_header(path, raw[: raw.index(b"\n")])
                self._size = raw.rfind(b"\n") + 1
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
                undo.callback(os.close, self._descriptor)
                if not begun:
                    undo.callback(path.unlink, missing_ok=True)
                self._cut()
                if not begun:
                    self.append({"journal": FORMAT, **header})
                    _sync_folder(path.parent)
                elif more is not None:
                    self.append(more)
            except OSError as error:
                raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
            undo.pop_all()

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line of strict JSON values; on return it is on the disk.

        Raises OSError, such as for a full disk; the journal is then as it was, and the next line may succeed.
        """
        whole = rest = sealed(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # the rest of the line is torn, and the next reader drops it
                self._cut()
            raise
        self._size += len(whole)

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._descriptor)
        self._lock.release()

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size, os.SEEK_SET)


def locked(path: Path) -> filelock.BaseFileLock:
    """Acquire the lock of the journal at `path`. Raises UsageError if another process holds it, or on a file error."""
    lock = filelock.FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(f"journal {path} is in use by another process: wait for it or stop it") from None
    except OSError as error:
        raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
    return lock


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that the name of a new file survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_header(path: Path) -> Line | None:
    """Return the header of the journal at `path`; None if its process was killed before the header was written.

    Raises UsageError if the file cannot be read, is not a journal, or its header is damaged.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error
    return _checked_header(path, first) if first.endswith(b"\n") else None


def read_lines(path: Path) -> Iterator[tuple[int, Line | ValueError]]:
    """Yield the number and content of each whole line after the header; for a damaged line, what is wrong with it.

    Raises UsageError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1 or not raw.endswith(b"\n"):
                    continue
                try:
                    yield number, unsealed(raw)
                except ValueError as error:
                    yield number, error
    except OSError as error:
        raise UsageError(f"journal {path} cannot be read: {error.strerror}") from error


def _checked_header(path: Path, raw: bytes) -> Line:
    try:
        header = unsealed(raw)
    except ValueError as error:
        raise UsageError(f"{path} is not a journal of embedcore, or is damaged: line 1 {error}") from error
    if header.get("journal") != FORMAT:
        raise UsageError(f"{path} is not a journal that this embedcore can read: its header has no 'journal': {FORMAT}")
    return header
