"""The measurements of a comparison, each written to disk before the next begins."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedcore.files import sealed, unsealed, writing
from embedcore.plain import json_safe
from embedcore.results.journal import locked
from embedcore.results.result import InvalidResultError, Result

FOLDER = "ab"
"""In the cache folder."""

_FINISHED = "finished"

Key = tuple[str, str, str, int]
"""Model, side, settings that differ from the side's own, number of the repetition."""


class Measurements:
    """The results of one comparison, a file each, with which an interrupted command continues.

    A context manager. A finished comparison, or any with `fresh`, starts from the beginning.
    """

    def __init__(self, cache_folder: Path, identity: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Open the comparison. Raises UsageError if another process has it open, or the folder cannot be written."""
        self.folder = cache_folder / FOLDER / _hash(identity)
        self.results: dict[Key, Result] = {}
        self._lock = locked(self.folder)
        if fresh or (self.folder / _FINISHED).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.folder.glob("*.json"):
            try:
                entry = unsealed(path.read_bytes())
                model, side, settings, number = entry["key"]
                self.results[model, side, settings, number] = Result.from_json(entry["result"])
            except (ValueError, InvalidResultError):
                path.unlink()  # damaged: measured again

    def add(self, key: Key, result: Result) -> None:
        """Add one measurement and write it to disk. Raises UsageError."""
        self.results[key] = result
        with writing(self.folder / f"{_hash(key)}.json", make_folder=True) as file:
            file.write(sealed({"key": list(key), "result": result.to_json()}))

    def finish(self) -> None:
        """Mark the comparison as finished. Raises UsageError."""
        with writing(self.folder / _FINISHED, make_folder=True):
            pass

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(json_safe(content), sort_keys=True).encode()).hexdigest()[:16]
