"""The noise floor of a machine: how much the speed of equal processes differs, as measured by `ab --aa`."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from embedcore.files import writing

FOLDER = "noise"
"""In the cache folder."""


class Noise(NamedTuple):
    """Standard deviations of the log of a speed ratio between two equal processes."""

    in_turn: float
    """For alternating rounds, as `ab` measures."""
    in_sequence: float
    """For one process after the other, as sessions measure."""


def stored_noise(cache_folder: Path, machine: str | None) -> Noise | None:
    """Return the noise of this processor or card; None if it was not measured, or its file is damaged."""
    try:
        found = json.loads(_path(cache_folder, machine).read_bytes())
        noise = Noise(*(float(found[name]) for name in Noise._fields))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noise if all(0 < value < 1 for value in noise) else None


def store_noise(cache_folder: Path, machine: str | None, noise: Noise, pairs: int) -> None:
    """Store the noise, measured from `pairs` pairs of processes. Raises UsageError."""
    path = _path(cache_folder, machine)
    found = {"machine": machine, **noise._asdict(), "pairs": pairs, "measured": datetime.datetime.now().isoformat()}
    with writing(path, make_folder=True) as file:
        file.write(json.dumps(found).encode())


def _path(cache_folder: Path, machine: str | None) -> Path:
    return cache_folder / FOLDER / f"{hashlib.sha256((machine or '').encode()).hexdigest()[:16]}.json"
