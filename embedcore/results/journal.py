"""The journal: each result on disk before its test reports, one JSON line a case under a header line.

A line counts once its newline is written. A process killed in the middle of a line leaves a torn last line, which
reading drops; `JournalContents.whole_bytes` says where a writer that continues the file has to cut it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from embedcore.errors import UsageError
from embedcore.results.plain import json_safe
from embedcore.results.result import InvalidResultError, Result

FORMAT = 1
"""Written as ``journal`` into the header; another number cannot be read here."""


class Journal:
    """A journal open for writing. Use it as a context manager, or call `close`."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream

    @classmethod
    def create(cls, path: Path, header: Mapping[str, object]) -> Journal:
        """A new journal at `path` whose first line holds `header` (settings, dataset, versions).

        Folders are made as needed. Raises UsageError if the file is there already or cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("xb")
        except FileExistsError:
            raise UsageError(f"journal {path} is there already, or a file is in the place of its folder") from None
        except OSError as error:
            raise UsageError(f"journal {path} cannot be written: {error.strerror}") from error
        journal = cls(path, stream)
        journal._write({"journal": FORMAT} | json_safe(header))
        return journal

    def append(self, result: Result) -> None:
        """Write `result`; when this returns, the line has been handed to the operating system."""
        self._write(result.to_json())

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, line: Mapping[str, object]) -> None:
        # ASCII only, so that no reader can take a character of a reason for the end of a line.
        self._stream.write(json.dumps(line, ensure_ascii=True, allow_nan=False).encode() + b"\n")
        self._stream.flush()


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
    results = tuple(_result(path, number, line) for number, line in enumerate(lines[1:], start=2))
    return JournalContents(header=header, results=results, whole_bytes=whole_bytes, torn=whole_bytes < len(raw))


def _result(path: Path, number: int, line: bytes) -> Result:
    try:
        return Result.from_json(_object(path, number, line))
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
