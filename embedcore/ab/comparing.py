"""From two interpreters to an outcome: sides opened, models paired, measured in turn with their books, judged."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcore.ab.books import Books
from embedcore.ab.interleave import Told, Track, interleave
from embedcore.ab.noise import Noise, store_noise, stored_noise
from embedcore.ab.outcome import Outcome, rows_of
from embedcore.ab.sides import Side, measured_in_turn
from embedcore.compare.interleaved import NOISE
from embedcore.compare.limits import Limits
from embedcore.compare.statistics import robust_sd
from embedcore.errors import UsageError
from embedcore.results.result import Result

WEIGHTS = "weights"
"""Folder of random weights that both sides load, in the cache folder's `ab`."""

NEVER = float("inf")

ALONE = "alone"
"""In the books, of a measurement with each side's own settings."""


def compare_sides(
    sides: Mapping[str, tuple[str, Path]],
    arguments: Sequence[str],
    limits: Limits,
    *,
    seconds: float = NEVER,
    fresh: bool = False,
    aa: bool = False,
    told: Told | None = None,
) -> Outcome:
    """Measure two sides in turn and judge.

    Args:
        sides: ``A`` and ``B`` to a name for people and an interpreter.
        arguments: of pytest: which models, and all settings.
        limits: of the gate; that of ``images_per_s`` is how narrow an interval has to be.
        seconds: a budget for measuring.
        fresh: do not go on where the same comparison was interrupted.
        aa: both sides are the same: keep the noise that is found.
        told: called as it goes.

    Raises UsageError, and SideLost where a side's process ends.
    """
    with contextlib.ExitStack() as stack:
        started = {
            key: stack.enter_context(Side(f"side {key} ({name})", path, arguments))
            for key, (name, path) in sides.items()
        }
        facts = {key: dict(side.opened()) for key, side in started.items()}
        if facts["A"]["dataset"]["fingerprint"] != facts["B"]["dataset"]["fingerprint"]:
            raise UsageError("the sides read other images from the same dataset, so nothing of them can be compared")
        both = [model for model in facts["A"]["models"] if model in facts["B"]["models"]]
        alone = {key: [model for model in fact["models"] if model not in both] for key, fact in facts.items()}
        if not both:
            raise UsageError("no model is on both sides: nothing can be compared" + _named(alone))
        cache, machine = Path(facts["A"]["cache"]), facts["A"]["machine_in_use"]
        noise = stored_noise(cache, machine)
        identity = {
            "sides": {key: [str(sides[key][1]), fact["versions"], fact["machine"]] for key, fact in facts.items()},
            "settings": facts["A"]["settings"],
            "models": both,
            "dataset": facts["A"]["dataset"]["fingerprint"],
        }
        books = stack.enter_context(Books(cache, identity, fresh=fresh))
        measure = _Measure(started, facts, books, cache)
        tracks = interleave(
            both,
            measure,
            lambda model: _limit(limits, model, measure.family(model)),
            noise=noise.in_turn if noise else NOISE,
            seconds=seconds,
            told=told,
        )
        unfinished = any(track.why.startswith("the budget") for track in tracks)
        if not unfinished:
            books.finish()
    found = _noise_found(tracks) if aa else None
    if found is not None:
        store_noise(cache, machine, found, sum(len(track.pairs) for track in tracks))
    return Outcome(
        sides={key: f"{name}: {_versions(facts[key]['versions'])}" for key, (name, _) in sides.items()},
        rows=rows_of(tracks, facts, limits),
        alone=alone,
        noise=noise.in_turn if noise else NOISE,
        noise_measured=noise is not None,
        machine=machine,
        noise_found=found,
    )


class _Measure:
    """Asks a side, or the books."""

    def __init__(self, sides: Mapping[str, Side], facts: Mapping[str, Any], books: Books, cache: Path) -> None:
        self._sides, self._books = sides, books
        self._weights: Path | None = None
        if facts["A"]["weights"] == "random":
            # Of this seed as this side makes them: another timm, or another torch, draws other ones.
            key = json.dumps([facts["A"]["versions"], facts["A"]["seed"], str(sides["A"].interpreter)])
            self._weights = cache / "ab" / WEIGHTS / hashlib.sha256(key.encode()).hexdigest()[:16]
        self._families: dict[str, str] = {}

    def alone(self, side: str, model: str) -> Result:
        key = (model, side, ALONE, 0)
        if key not in self._books.results:
            self._books.keep(key, self._sides[side].measure(model, **self._weights_of(model)))
        self._families[model] = self._books.results[key].family
        return self._books.results[key]

    def in_turn(self, model: str, number: int, equal: Mapping[str, Any]) -> dict[str, Result]:
        keys = {side: (model, side, json.dumps(equal, sort_keys=True), number) for side in "AB"}
        if not self._books.results.keys() >= set(keys.values()):
            order = "BA" if number % 2 else "AB"
            sides = {side: self._sides[side] for side in order}
            for side, result in measured_in_turn(sides, model, {**equal, **self._weights_of(model)}).items():
                self._books.keep(keys[side], result)
        return {side: self._books.results[key] for side, key in keys.items()}

    def _weights_of(self, model: str) -> dict[str, str]:
        if self._weights is None:
            return {}
        self._sides["A"].save_weights(model, self._weights)
        return {"weights": str(self._weights)}

    def family(self, model: str) -> str:
        return self._families[model]


def _limit(limits: Limits, model: str, family: str) -> float:
    """Of speed; where none is set, as narrow as the default's."""
    limit = limits.of(model, family).get("images_per_s", NEVER)
    return limit if 0 < limit < 1 else 0.05


def _noise_found(tracks: Sequence[Track]) -> Noise | None:
    in_turn = [track.pairs for track in tracks if track.pairs]
    speeds = [own for track in tracks for own in track.speeds.values()]
    in_sequence = [[after - before for before, after in itertools.pairwise(own)] for own in speeds if len(own) > 1]
    found = Noise(*(robust_sd(np.concatenate(ratios)) if ratios else 0.0 for ratios in (in_turn, in_sequence)))
    return found if all(found) else None


def _named(alone: Mapping[str, Sequence[str]]) -> str:
    return "".join(
        f"; side {side} alone has {', '.join(models[:3])}{', …' if len(models) > 3 else ''}"
        for side, models in alone.items()
        if models
    )


def _versions(versions: Mapping[str, str | None]) -> str:
    shown = [f"{key} {versions[key]}" for key in ("timm", "torch") if versions.get(key)]
    return ", ".join([*shown, *([f"commit {versions['commit']}"[:14]] if versions.get("commit") else [])])
