"""The noise floor of a machine: how far two processes that run the same are apart in speed, as `ab --aa` found it."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.files import written_whole

FOLDER = "noise"
"""In the cache folder."""


def stored_noise(cache_folder: Path, machine: str | None) -> float | None:
    """Standard deviation of the log of a speed ratio between two processes on this machine (processor or card).

    None where it was not measured, or its file is not what it should be.
    """
    try:
        found = json.loads(_path(cache_folder, machine).read_bytes())
        noise = float(found["noise"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noise if 0 < noise < 1 else None


def store_noise(cache_folder: Path, machine: str | None, noise: float, pairs: int) -> None:
    """Keep what was found from so many pairs of processes. Raises UsageError."""
    path = _path(cache_folder, machine)
    found = {"machine": machine, "noise": noise, "pairs": pairs, "measured": datetime.datetime.now().isoformat()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(json.dumps(found).encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def _path(cache_folder: Path, machine: str | None) -> Path:
    return cache_folder / FOLDER / f"{hashlib.sha256((machine or '').encode()).hexdigest()[:16]}.json"
