"""The books of a comparison of two sides: each measurement on disk before the next begins."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.files import sealed, unsealed
from embedcore.plain import json_safe
from embedcore.results.journal import locked
from embedcore.results.result import InvalidResultError, Result

FOLDER = "ab"
"""In the cache folder."""

Key = tuple[str, str, str, int]
"""Model, side, what was asked for besides, and the how manieth time."""


class Books:
    """The measurements of one comparison: those from before, and each new one in the file at once.

    A context manager. A comparison that was finished starts anew, and so does each with `fresh`.
    """

    def __init__(self, cache_folder: Path, identity: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Raises UsageError where another process makes the same comparison, or the file cannot be written."""
        text = json.dumps(json_safe(identity), sort_keys=True)
        self.path = cache_folder / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
        self.results: dict[Key, Result] = {}
        self._lock = locked(self.path)
        try:
            whole = b"" if fresh else self._read()
            self._file = self.path.open("wb")
            self._file.write(whole)
            if not whole:
                self._write({"identity": json_safe(identity)})
        except OSError as error:
            self._lock.release()
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def keep(self, key: Key, result: Result) -> None:
        """Write one measurement; when this returns, it is on the disk. Raises UsageError."""
        self.results[key] = result
        try:
            self._write({"key": list(key), "result": result.to_json()})
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def finish(self) -> None:
        """Let the same command begin anew from now on."""
        self._write({"finished": True})

    def __enter__(self) -> Books:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    def _read(self) -> bytes:
        """The whole lines that are there; empty where there are none, or they are of a finished comparison."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        good = []
        for line in raw.splitlines(keepends=True):
            try:
                entry = unsealed(line)
                if entry.get("finished"):
                    self.results.clear()
                    return b""
                if "key" in entry:
                    model, side, asked, time = entry["key"]
                    self.results[model, side, asked, time] = Result.from_json(entry["result"])
            except (ValueError, InvalidResultError):  # torn, or damaged: measured again
                continue
            good.append(line)
        return b"".join(good)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(sealed(line))
        self._file.flush()
        os.fsync(self._file.fileno())
