"""Coverage of the gate: which quantities with a limit were judged, and why the others were not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedcore.compare.comparison import Comparison, ModelChange
from embedcore.compare.limits import TESTED, Limits
from embedcore.plain import listed
from embedcore.results.headline import UNLABELLED
from embedcore.results.result import Result
from embedcore.retrieval.outcomes import PROBES

MUST_BE_JUDGED = ("scores", "drift", *PROBES)
"""Quantities without which nothing can pass."""

SUSPECT = "suspect"
"""Why a speed is undecided although it was timed in enough processes."""


@dataclass(frozen=True)
class Judged:
    """One quantity that has a limit."""

    what: str
    """``scores``, ``drift``, ``memory``, ``speed``, or the score of a probe."""
    judged: int
    """Number of models."""
    open: Mapping[str, str]
    """Model that was not judged → why."""


def judged_of(
    comparison: Comparison, limits: Limits, undecided: Mapping[str, str], settled: Collection[str]
) -> tuple[Judged, ...]:
    """Return what was judged of the models that both runs measured; quantities without a limit are left out.

    `undecided`: models whose speed is not decided, with the reason; `settled`: those whose speed was decided although
    the two runs alone do not tell.
    """
    found: dict[str, dict[str, str]] = {what: {} for what in _LIMITS}
    for model in comparison.models:
        if not (model.pair.base.ok and model.pair.new.ok):
            continue
        own = limits.of(model.pair.case, model.family)
        whys = dict(_reasons_of(model, {**model.barriers, **comparison.barriers}))
        if model.model in settled:
            whys["speed"] = ""
        elif "speed" in whys:
            whys["speed"] = undecided.get(model.model, "") or whys["speed"]
        for what, why in whys.items():
            if any(math.isfinite(own.get(name, math.inf)) for name in _LIMITS[what]):
                found[what][model.model] = why
    return tuple(
        Judged(what, sum(not why for why in models.values()), {name: why for name, why in models.items() if why})
        for what, models in found.items()
        if models
    )


_LIMITS: Mapping[str, tuple[str, ...]] = {
    "scores": (*TESTED, *UNLABELLED),
    **{name: (name,) for name in PROBES},
    "drift": ("drift",),
    "memory": ("memory",),
    "speed": ("images_per_s",),
}
"""Quantity → the limits that ask for it."""


def _reasons_of(model: ModelChange, barriers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each quantity and why it was not judged, "" if it was. Given embeddings have neither speed nor memory."""
    sides = model.pair.base, model.pair.new
    yield "scores", barriers.get("scores") or _lacking(model, "verdicts", lambda result: result.verdicts)
    yield "drift", barriers.get("scores") or _lacking(model, "sketch", lambda result: result.sketch)
    for name in PROBES:
        yield name, barriers.get("scores") or _untested(model, name)
    if any(result.peak_memory_mb for result in sides):
        yield "memory", barriers.get("speed") or _lacking(model, "figure", lambda result: result.peak_memory_mb)
    if any(result.durations or result.processes for result in sides):
        yield "speed", barriers.get("speed") or barriers.get("images_per_s") or ""


def _lacking(model: ModelChange, what: str, value: Callable[[Result], object]) -> str:
    sides = {"base": model.pair.base, "new": model.pair.new}
    without = [name for name, result in sides.items() if not value(result)]
    return f"no {what} ({' and '.join(without)})" if without else ""


def _untested(model: ModelChange, name: str) -> str:
    """Return why the score of a probe was not tested, "" if it was."""
    if any(change.what == name and change.p is not None for change in model.changes):
        return ""
    return _lacking(model, name, lambda result: result.probe_verdicts.get(name)) or "judged on other queries or draws"


def headline(parts: Collection[Judged]) -> str:
    """Return what was judged and what was not, such as ``scores of 619, speed of 431; not judged: speed of 188 (beside
    other work)``.
    """
    judged = _grouped({part.what: f"{part.judged}" for part in parts if part.judged})
    rest = _grouped({part.what: f"{len(part.open)} ({_reasons(part)})" for part in parts if part.open})
    return "; ".join([judged or "nothing", *([f"not judged: {rest}"] if rest else [])])


def _grouped(counts: Mapping[str, str]) -> str:
    """Return quantities with their counts, those of one count together.

    >>> _grouped({"scores": "3", "drift": "3", "speed": "2"})
    'scores and drift of 3, speed of 2'
    """
    groups: dict[str, list[str]] = {}
    for what, count in counts.items():
        groups.setdefault(count, []).append(what)
    return ", ".join(f"{listed(names)} of {count}" for count, names in groups.items())


def _reasons(part: Judged) -> str:
    """Return the reasons, without details, most frequent first, with their numbers if there are several."""
    counts = Counter(why.partition(": ")[0].partition(" (")[0] for why in part.open.values())
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {why}" for why, count in counts.most_common())


def reasons(parts: Collection[Judged], most_names: int = 5) -> Iterator[str]:
    """Yield the quantities and models of each reason, such as ``drift of resnet18.a1_in1k: no sketch (new)``."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in parts:
        for name, why in part.open.items():
            found.setdefault(why, {}).setdefault(part.what, []).append(name)
    for why, by_what in found.items():
        models = {what: names_of(named, most_names) for what, named in by_what.items()}
        yield f"{_grouped(models)}: {why}"


def names_of(of: Sequence[str], most: int) -> str:
    """Return the first names and the number of the others."""
    more = len(of) - most
    return ", ".join(of[:most]) + (f" and {more} more" if more > 0 else "")
