"""The measurements of a comparison, each on disk before the next begins."""

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
"""Model, side, settings that differ from the side's own, number of the repetition."""


class Measurements:
    """The results of one comparison, in a file that an interrupted command continues.

    A context manager. A finished comparison starts anew, as does any with `fresh`.
    """

    def __init__(self, cache_folder: Path, identity: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Raises UsageError if another process makes the same comparison, or the file cannot be written."""
        text = json.dumps(json_safe(identity), sort_keys=True)
        self.path = cache_folder / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
        self.results: dict[Key, Result] = {}
        self._lock = locked(self.path)
        try:
            kept = b"" if fresh else self._read()
            self._file = self.path.open("wb")
            self._file.write(kept)
            if not kept:
                self._write({"identity": json_safe(identity)})
        except OSError as error:
            self._lock.release()
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def add(self, key: Key, result: Result) -> None:
        """Add one measurement and sync it to disk. Raises UsageError."""
        self.results[key] = result
        try:
            self._write({"key": list(key), "result": result.to_json()})
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def finish(self) -> None:
        """Mark the comparison as finished."""
        self._write({"finished": True})

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    def _read(self) -> bytes:
        """Load the undamaged lines and return them; nothing of a finished comparison."""
        if not self.path.exists():
            return b""
        good = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                entry = unsealed(line)
                if entry.get("finished"):
                    self.results.clear()
                    return b""
                if "key" in entry:
                    model, side, settings, number = entry["key"]
                    self.results[model, side, settings, number] = Result.from_json(entry["result"])
            except (ValueError, InvalidResultError):  # a damaged line is measured again
                continue
            good.append(line)
        return b"".join(good)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(sealed(line))
        self._file.flush()
        os.fsync(self._file.fileno())
