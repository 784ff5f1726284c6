"""Compare two sides: start both, measure their common models, judge the differences."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcore.ab.environments import Environment
from embedcore.ab.explain import Explanation, explanation_of, with_origin
from embedcore.ab.measurements import FOLDER, Measurements
from embedcore.ab.noise import Noise, store_noise, stored_noise
from embedcore.ab.outcome import Outcome, rows_of, side_run
from embedcore.ab.schedule import OUT_OF_TIME, Progress, Track, measure_models
from embedcore.ab.sides import Side, measure_interleaved
from embedcore.compare.interleaved import NOISE
from embedcore.compare.limits import Limits
from embedcore.compare.statistics import robust_sd
from embedcore.compare.stored_embeddings import StoredEmbeddings, judge_stored
from embedcore.embed.trace import Trace
from embedcore.errors import UsageError
from embedcore.results.result import Result

WEIGHTS = "weights"
"""Folder of random weights that both sides load, below `FOLDER` of the cache folder."""


def compare_sides(
    environments: Mapping[str, Environment],
    arguments: Sequence[str],
    limits: Limits,
    *,
    seconds: float = float("inf"),
    fresh: bool = False,
    aa: bool = False,
    maps: Path | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure two sides in turn and judge the difference.

    Args:
        environments: those of the sides ``A`` and ``B``.
        arguments: pytest's arguments, which select the models and all settings.
        limits: the gate's; the limit of ``images_per_s`` is also the required precision of a speed ratio.
        seconds: budget for measuring.
        fresh: do not continue an interrupted comparison.
        aa: both sides are equal: store the noise that is found.
        maps: also judge side A's stored embeddings; folder for matrices.

    Raises UsageError, and SideLost if a side's process ends.
    """
    with contextlib.ExitStack() as stack:
        sides, facts = _opened(stack, environments, arguments)
        both = [model for model in facts["A"]["models"] if model in facts["B"]["models"]]
        alone = {key: [model for model in fact["models"] if model not in both] for key, fact in facts.items()}
        if not both:
            raise UsageError("no model is on both sides: nothing can be compared" + _named(alone))
        cache, machine = Path(facts["A"]["cache"]), facts["A"]["machine_in_use"]
        noise = stored_noise(cache, machine)
        floor = noise.in_turn if noise else NOISE
        identity = {
            "sides": {key: [environments[key][1:], fact["versions"], fact["machine"]] for key, fact in facts.items()},
            "settings": facts["A"]["settings"],
            "models": both,
            "dataset": facts["A"]["dataset"]["fingerprint"],
        }
        measurements = stack.enter_context(Measurements(cache, identity, fresh=fresh))
        measure = _Measure(sides, facts, measurements)
        tracks = measure_models(
            both,
            measure,
            lambda model: limits.of_speed(model, measure.families[model]),
            noise=floor,
            seconds=seconds,
            progress=progress,
            clock=clock,
        )
        stored = () if maps is None else judge_sides(sides, both, measure.weights_of, limits, cache, maps)
        precisions = {track.model: track.first["B"].precision for track in tracks if "B" in track.first}
        rows = [with_origin(row, precisions.get(row.model), measure.trace) for row in rows_of(tracks, facts, limits)]
        if not any(OUT_OF_TIME in track.why for track in tracks):
            measurements.finish()
    found = _noise_found(tracks) if aa else None
    if found is not None:
        store_noise(cache, machine, found, sum(len(track.pairs) for track in tracks))
    return Outcome(
        sides=_names(environments, facts),
        rows=tuple(rows),
        alone=alone,
        noise=floor,
        noise_measured=noise is not None,
        machine=machine,
        limits=limits,
        noise_found=found,
        stored=tuple(stored),
    )


def judge_sides(
    sides: Mapping[str, Side],
    models: Sequence[str],
    changes: Callable[[str], Mapping[str, Any]],
    limits: Limits,
    cache: Path,
    maps: Path,
) -> list[StoredEmbeddings]:
    """Judge whether queries that side B embeds can search the embeddings that side A has stored.

    Each side embeds all images of its dataset, and keeps the embeddings in its cache folder `cache`, so that a repeated
    command does not compute them again. `changes`: model → settings of the measurement, such as common weights;
    `limits`, `maps`: see `judge_stored`. Raises UsageError, SideLost.
    """
    runs = {}
    for key, side in sides.items():
        dataset = side.images()
        results = [side.embed(model, rounds=1, **changes(model)) for model in models]
        runs[key] = side_run(key, results, dataset)
    return judge_stored(runs["A"], runs["B"], cache, limits, maps)


def explain_models(
    environments: Mapping[str, Environment], arguments: Sequence[str], models: Sequence[str]
) -> tuple[Mapping[str, str], list[Explanation]]:
    """Return the names of two sides, and for each model where the embeddings of the sides begin to differ.

    Nothing is measured; both sides embed the same images with the same weights. Raises UsageError, SideLost.
    """
    with contextlib.ExitStack() as stack:
        sides, facts = _opened(stack, environments, arguments)
        trace = CommonWeights(sides, facts).trace
        return _names(environments, facts), [explanation_of(model, trace) for model in models]


def _opened(
    stack: contextlib.ExitStack, environments: Mapping[str, Environment], arguments: Sequence[str]
) -> tuple[dict[str, Side], dict[str, dict[str, Any]]]:
    """Start both sides; return them and their facts. Raises UsageError if they read different images."""
    sides = {
        key: stack.enter_context(Side(environment._replace(name=f"side {key} ({environment.name})"), arguments))
        for key, environment in environments.items()
    }
    facts = {key: dict(side.opened()) for key, side in sides.items()}
    if facts["A"]["dataset"]["fingerprint"] != facts["B"]["dataset"]["fingerprint"]:
        raise UsageError("the sides read different images from the same dataset, so they cannot be compared")
    return sides, facts


class CommonWeights:
    """Both sides, the weights that they load, and traces with them."""

    def __init__(self, sides: Mapping[str, Side], facts: Mapping[str, Any]) -> None:
        self._sides = sides
        self._number: int | None = None
        self._weights: Path | None = None
        if facts["A"]["weights"] == "random":
            # Side A writes them for both, since another timm or torch draws other weights from the same seed.
            key = json.dumps([facts["A"]["versions"], facts["A"]["seed"], sides["A"].environment[1:]], default=str)
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            self._weights = Path(facts["A"]["cache"]) / FOLDER / WEIGHTS / name

    def sides_of(self, number: int) -> dict[str, Side]:
        """Return both sides in the order of pair `number`, with new servers if the last pair had another number."""
        if number != self._number:
            for side in self._sides.values():
                side.renew()
            self._number = number
        return {key: self._sides[key] for key in ("BA" if number % 2 else "AB")}

    def trace(self, side: str, model: str) -> Trace:
        return self._sides[side].trace(model, **self.weights_of(model))

    def weights_of(self, model: str) -> dict[str, str]:
        """Return the setting that makes both sides load the same random weights; empty if they are not random."""
        if self._weights is None:
            return {}
        self._sides["A"].save_weights(model, self._weights)
        return {"weights": str(self._weights)}


class _Measure(CommonWeights):
    """Measures models, reusing what `measurements` contains."""

    def __init__(self, sides: Mapping[str, Side], facts: Mapping[str, Any], measurements: Measurements) -> None:
        super().__init__(sides, facts)
        self.families: dict[str, str] = {}
        self._measurements = measurements

    def alone(self, side: str, model: str) -> Result:
        key = (model, side, "alone", 0)
        if key not in self._measurements.results:
            self._measurements.add(key, self._sides[side].measure(model, **self.weights_of(model)))
        result = self._measurements.results[key]
        self.families[model] = result.family
        return result

    def interleaved(self, model: str, number: int, equal: Mapping[str, Any]) -> dict[str, Result]:
        keys = {side: (model, side, json.dumps(equal, sort_keys=True), number) for side in "AB"}
        if not self._measurements.results.keys() >= set(keys.values()):
            settings = {**equal, **self.weights_of(model)}
            for side, result in measure_interleaved(self.sides_of(number), model, settings).items():
                self._measurements.add(keys[side], result)
        return {side: self._measurements.results[key] for side, key in keys.items()}


def _noise_found(tracks: Sequence[Track]) -> Noise | None:
    in_turn = [track.pairs for track in tracks if track.pairs]
    speeds = [logs for track in tracks for logs in track.speeds.values()]
    in_sequence = [[after - before for before, after in itertools.pairwise(logs)] for logs in speeds if len(logs) > 1]
    found = Noise(*(robust_sd(np.concatenate(logs)) if logs else 0.0 for logs in (in_turn, in_sequence)))
    return found if all(found) else None


def _named(alone: Mapping[str, Sequence[str]]) -> str:
    return "".join(
        f"; only side {side} has {', '.join(models[:3])}{', …' if len(models) > 3 else ''}"
        for side, models in alone.items()
        if models
    )


def _names(environments: Mapping[str, Environment], facts: Mapping[str, Any]) -> dict[str, str]:
    return {key: f"{side.name}: {_versions(facts[key]['versions'])}" for key, side in environments.items()}


def _versions(versions: Mapping[str, str | None]) -> str:
    shown = [f"{key} {versions[key]}" for key in ("timm", "torch") if versions.get(key)]
    return ", ".join([*shown, *([f"commit {versions['commit']}"[:14]] if versions.get("commit") else [])])
