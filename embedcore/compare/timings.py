"""The timings of two runs: each model's speed in each process, and whether the machine changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, NamedTuple

import numpy as np

from embedcore.compare.pairs import Pair
from embedcore.compare.speed import Fall, Noise, Replicates, Shift, falls, pooled_noise, shift_of
from embedcore.compare.statistics import Doubles
from embedcore.results.process import Pinned, Rounds, TimingProcess
from embedcore.results.result import CROWDED, Result
from embedcore.results.run import Run

Basis = Literal["pinned", "threads", "card"]
"""The timed work: one thread pinned to a core, all threads of the processor, or a card."""

FEWEST_PROCESSES = 2

_FLOOR: Mapping[Basis, float] = {"pinned": 0.008, "threads": 0.08, "card": 0.01}
"""Smallest noise to assume: about that of an idle machine."""

_SHARE = 0.4
"""Noise between processes as a share of that between the rounds of a process: .36 to .47 in 106 processes of 5 models
on a virtual machine with a busy neighbour, with one pinned thread, each round corrected by the product beside it."""

_DRIFT = 0.7
"""Noise between sessions as a share of that between rounds, on the same machine: .03 against .042 in 21 sessions."""
_APART_S = 600.0
"""Processes of a side that began further apart show that noise themselves."""


@dataclass(frozen=True)
class SpeedNoise:
    """How speeds of one kind were compared."""

    basis: Basis
    models: int
    noise: Noise
    corrected: bool
    """Whether each round was divided by the reference kernel's matrix product beside it."""


@dataclass(frozen=True)
class Speeds:
    """The speeds of two runs."""

    falls: Mapping[str, Fall]
    """By case."""
    undecided: Mapping[str, str]
    """Case → why its speed is not known well enough to judge it."""
    noise: tuple[SpeedNoise, ...] = ()
    machine: str = ""
    """A change of the machine that the reference kernel shows, or why the kernel cannot show it."""
    by_threads: frozenset[str] = frozenset()
    """Cases whose fall is that of all threads although one pinned thread was timed too."""


class _Timing(NamedTuple):
    """One process: logarithms of medians over its rounds."""

    started: float
    """Seconds since the epoch."""
    spread: float
    """Standard deviation of the rounds, from their quartiles, corrected if possible."""
    raw: float
    """Seconds per image."""
    corrected: float | None = None
    """Seconds per image over seconds of the matrix product of the same round."""
    product: float | None = None
    copy: float | None = None


def speeds_of(pairs: Sequence[Pair], base: Run, new: Run, *, threads_only: bool = False) -> Speeds:
    """Compare the speeds of pairs of ok results; a pair without timings on both sides is left out.

    `threads_only`: ignore the pinned thread, which does not use the number of threads that differs.
    """
    undecided: dict[str, str] = {}
    groups: dict[Basis, dict[str, tuple[list[_Timing], list[_Timing]]]] = {}
    second: dict[str, tuple[list[_Timing], list[_Timing]]] = {}
    for pair in pairs:
        basis = basis_of(pair, threads_only=threads_only)
        sides = tuple(_usable(result, basis) for result in (pair.base, pair.new))
        why = _too_few(pair, sides, basis)
        if why is None:
            continue
        if why:
            undecided[pair.model] = why
            continue
        before, after = ([_timing(*used) for used in side] for side in sides)
        groups.setdefault(basis, {})[pair.model] = before, after
        if basis == "pinned":
            others = [_usable(result, "threads") for result in (pair.base, pair.new)]
            if all(len(other) >= FEWEST_PROCESSES for other in others):
                before, after = ([_timing(*used) for used in side] for side in others)
                second[pair.model] = before, after
    why_not = _reference_differs(base, new)
    found = Speeds({}, undecided, machine=why_not if groups else "")
    tests = sum(map(len, groups.values())) + len(second)
    for basis, cases in groups.items():
        found = joined([found, _compared(basis, cases, tests, usable=not why_not)])
    if second and found.falls:
        found = _with_threads(found, _compared("threads", second, tests, usable=not why_not))
    return found


def basis_of(pair: Pair, *, threads_only: bool = False) -> Basis:
    """Return what to compare: pinned rounds if every process of both sides has them with equally many images."""
    if pair.new.device not in (None, "cpu"):
        return "card"
    sizes = {
        process.pinned.images if process.pinned is not None and _positive(process.pinned.durations) else 0
        for result in (pair.base, pair.new)
        for process in result.processes
    }
    return "pinned" if len(sizes) == 1 and sizes != {0} and not threads_only else "threads"


class _Used(NamedTuple):
    """Rounds of a process that ran without other work beside it."""

    started: float
    images: int
    """Images of a round."""
    rounds: Rounds


def _usable(result: Result, basis: Basis) -> list[_Used]:
    found = []
    for process in result.processes:
        rounds = _rounds(process, basis)
        disturbed = (rounds.crowded or 0.0) > CROWDED or (basis == "card" and process.other_processes)
        if _positive(rounds.durations) and not disturbed:
            images = rounds.images if isinstance(rounds, Pinned) else result.batch_size or 1
            found.append(_Used(process.started, images, rounds))
    return found


def _positive(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0


def _too_few(pair: Pair, sides: Sequence[Sequence[object]], basis: Basis) -> str | None:
    """Return why a speed cannot be compared, "" if it can; None if no side was timed, as with given embeddings."""
    names = {"base": pair.base, "new": pair.new}
    untimed = [name for name, result in names.items() if not (result.durations or result.processes)]
    if len(untimed) == 2:
        return None
    if untimed:
        return f"not timed ({untimed[0]})"
    single = [name for name, result in names.items() if len(result.processes) < FEWEST_PROCESSES]
    if single:
        return f"timed in one process ({' and '.join(single)})"
    few = [name for name, side in zip(names, sides, strict=True) if len(side) < FEWEST_PROCESSES]
    if not few:
        return ""
    timed = [
        name
        for name in few
        if sum(_positive(_rounds(p, basis).durations) for p in names[name].processes) < FEWEST_PROCESSES
    ]
    return f"timed in one process ({' and '.join(timed)})" if timed else f"beside other work ({' and '.join(few)})"


def _rounds(process: TimingProcess, basis: Basis) -> Rounds:
    return process.pinned if basis == "pinned" and process.pinned is not None else process


def _timing(started: float, images: int, rounds: Rounds) -> _Timing:
    logs, copies = np.log(rounds.durations) - math.log(images), rounds.reference_copy
    rows = [logs]
    if len(rounds.durations) == len(rounds.reference) == len(copies) and _positive(copies):
        products = np.subtract(rounds.reference, copies)
        if products.min() > 0:
            products = np.log(products)
            rows += [logs - products, products, np.log(copies)]
    low, middle, high = _quartiles(np.array(rows))
    best = min(1, len(rows) - 1)
    return _Timing(started, (high[best] - low[best]) / 1.349, *middle)


def _quartiles(values: Doubles) -> list[list[float]]:
    """Return the three quartiles of each row [rows, n], as `numpy.quantile` does; sorts `values` in place."""
    values.sort(axis=1)
    last = values.shape[1] - 1
    quarters = np.arange(1, 4) * last
    below, above = values[:, quarters // 4], values[:, np.minimum(quarters // 4 + 1, last)]
    found: list[list[float]] = (below + quarters % 4 / 4 * (above - below)).T.tolist()
    return found


def _compared(
    basis: Basis, cases: Mapping[str, tuple[list[_Timing], list[_Timing]]], tests: int, *, usable: bool
) -> Speeds:
    """Return the falls of one basis; all are undecided if parts of the machine changed by different factors."""
    timings = [timing for sides in cases.values() for side in sides for timing in side]
    raw = [Replicates(*([timing.raw for timing in side] for side in sides)) for sides in cases.values()]
    spread = median(timing.spread for timing in timings)
    prior = max(_FLOOR[basis], _SHARE * spread)
    chosen, corrected, machine = raw, False, ""
    known = usable and all(timing.corrected is not None for timing in timings)
    if known:
        beside = [Replicates(*([t.corrected or 0.0 for t in side] for side in sides)) for sides in cases.values()]
        product, copy = _shifts(list(cases.values()))
        machine, same = _machine(product, copy)
        if not same:
            return Speeds({}, dict.fromkeys(cases, machine), machine=machine)
        if product.sure or pooled_noise(beside, prior).sd < pooled_noise(raw, prior).sd:
            chosen, corrected = beside, True
    found, noise = falls(chosen, prior, models=tests, drift=0.0 if _far_apart(cases) else _DRIFT * spread)
    notes = (SpeedNoise(basis, len(cases), noise, corrected),)
    return Speeds(dict(zip(cases, found, strict=True)), {}, notes, machine)


def _far_apart(cases: Mapping[str, tuple[list[_Timing], list[_Timing]]]) -> bool:
    """Whether the processes of most sides began at times between which the machine may have changed."""
    sides = [[timing.started for timing in side] for both in cases.values() for side in both]
    return median(max(side) - min(side) for side in sides) >= _APART_S


def _shifts(cases: Sequence[tuple[list[_Timing], list[_Timing]]]) -> Iterator[Shift]:
    """Return the shifts of product and copy from base to new."""
    for name in ("product", "copy"):
        yield shift_of(*([getattr(timing, name) for sides in cases for timing in sides[place]] for place in (0, 1)))


def _machine(product: Shift, copy: Shift) -> tuple[str, bool]:
    """Return a phrase on how the machine changed, and whether all of it changed by the same factor."""
    if not product.sure and not copy.sure:
        return "", True
    apart = Shift(product.shift - copy.shift, math.hypot(product.error, copy.error))
    if product.sure and copy.sure and not apart.sure:
        return f"the machine is {_slower((product.shift + copy.shift) / 2)}; speeds are corrected for it", True
    return f"the machine changed: matrix products {_slower(product.shift)}, copies {_slower(copy.shift)}", False


def _slower(shift: float) -> str:
    """Return a phrase such as ``12 % slower``, for the logarithm of a ratio of seconds."""
    percent = round(100 * abs(1 - math.exp(-shift)))
    return f"{percent} % {'slower' if shift > 0 else 'faster'}" if percent else "unchanged"


def _reference_differs(base: Run, new: Run) -> str:
    """Return why the reference kernel's seconds are not comparable; "" if they are.

    On a card torch runs it, on the processor numpy.
    """
    on_card = bool(new.versions.get("gpu"))
    names = ("torch", "cuda", "driver") if on_card else ("numpy",)
    old, now = (run.versions if on_card else {"numpy": _numpy(run)} for run in (base, new))
    other = [f"{name} {old.get(name)} → {now.get(name)}" for name in names if old.get(name) != now.get(name)]
    if not other:
        return ""
    return f"a machine that changed would not be noticed: the reference kernel needs the same {', '.join(other)}"


def _numpy(run: Run) -> str | None:
    """Return numpy's version, if the run records its requirements."""
    return next((each.removeprefix("numpy==") for each in run.requirements if each.startswith("numpy==")), None)


def joined(parts: Sequence[Speeds]) -> Speeds:
    """Return the speeds of several groups of cases as one."""
    return Speeds(
        {model: fall for part in parts for model, fall in part.falls.items()},
        {model: why for part in parts for model, why in part.undecided.items()},
        tuple(noise for part in parts for noise in part.noise),
        "; ".join(dict.fromkeys(part.machine for part in parts if part.machine)),
        frozenset(model for part in parts for model in part.by_threads),
    )


def _with_threads(found: Speeds, threads: Speeds) -> Speeds:
    """Replace the falls of pinned threads by those of all threads where these surely fell further.

    A release that no longer uses all threads leaves the pinned one as fast as before.
    """
    worse = {
        model: fall
        for model, fall in threads.falls.items()
        if model in found.falls and fall.sure > max(0.0, found.falls[model].high)
    }
    return replace(found, falls={**found.falls, **worse}, by_threads=frozenset(worse))
