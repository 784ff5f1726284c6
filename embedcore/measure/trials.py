"""Trials of a model on a machine, whose outcome is kept: the next session neither repeats nor contradicts them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedcore.embed.kept import key_of
from embedcore.files import sealed, unsealed, written_whole

FOLDER = "trials"  # within the folder of engines


class Trials:
    """Outcomes by name, in a file of ``folder`` that belongs to ``facts``; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, facts: Mapping[str, Any]) -> None:
        self._path = None if folder is None else folder / FOLDER / f"{key_of(facts)}.json"
        self._kept: dict[str, Any] = {}
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):  # not there, or damaged
                self._kept = unsealed(self._path.read_bytes())

    def outcome(self, name: str, trial: Callable[[], Any]) -> Any:
        """Return the kept outcome of a trial, a JSON value, or that of ``trial()``, which is kept unless it is None."""
        if name in self._kept:
            return self._kept[name]
        found = trial()
        if found is not None:
            self._kept[name] = found
            self._save()
        return found

    def _save(self) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError):  # a full disk, or a folder that cannot be written: tried again next time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(self._path) as file:
                file.write(sealed(self._kept))
