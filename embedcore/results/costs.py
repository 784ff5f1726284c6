"""Durations of measured cases on each machine, and estimates for others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from embedcore.plain import one_line
from embedcore.results.estimate import estimate_range, estimate_seconds
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.runs import TimedCase, case_cost, journals_of, timed_cases

Costs = Sequence[tuple[float, float]]
"""(GMACs, seconds) of each measured model."""


class Setup(NamedTuple):
    """How models were run: on which card or processor, engine and precision."""

    machine: str
    engine: str
    precision: str


@dataclass(frozen=True)
class MachineCost:
    """Estimated duration of the cases of a selection on one machine."""

    setup: Setup
    seconds: float
    range: tuple[float, float]
    """About three ranges in four contain the actual duration."""
    measured: int
    """Number of models that were measured there."""
    outside: int
    """Number of models of the selection whose GMACs are outside those of the measured ones, or not known."""
    workers: int | None
    """Number of machines that end within the given time even at the upper end of `range`; None if no number is enough,
    since one case alone takes longer."""


def costs_by_setup(runs: Iterable[Run], folder: Path, images: int, processes: int) -> dict[Setup, Costs]:
    """Return the costs of the models in saved runs and in the journals of `folder`, as if measured on `images`.

    If a model was measured several times, the first one counts: saved runs in their order, then the newest journal.
    `processes`: number of processes in which a case is timed. Journals that cannot be read are skipped.
    """
    found: dict[Setup, dict[str, tuple[float, float]]] = {}
    cases: Iterable[tuple[str | None, Result | TimedCase]] = chain(_of_runs(runs), _of_journals(folder))
    for machine, case in cases:
        cost = case_cost(case, images, processes)
        if machine and cost is not None:
            setup = Setup(one_line(str(machine)), case.engine or "eager", case.precision or "?")
            found.setdefault(setup, {}).setdefault(case.model, cost)
    return {setup: [*costs.values()] for setup, costs in found.items()}


def _of_runs(runs: Iterable[Run]) -> Iterator[tuple[str | None, Result]]:
    """Yield each result with its card or processor, without the driver that a merged run names with it."""
    for run in runs:
        for result in run.results:
            yield result.processor.partition(", driver ")[0] if result.processor else run.processor, result


def _of_journals(folder: Path) -> Iterator[tuple[str | None, TimedCase]]:
    with contextlib.suppress(OSError):  # an estimate is not worth an error
        for paths in journals_of(folder).values():
            for path in paths:
                for identity, case in timed_cases(path):
                    yield identity.get("machine"), case


def machine_costs(measured: Mapping[Setup, Costs], gmacs: Sequence[float | None], within: float) -> list[MachineCost]:
    """Return estimates for cases with these GMACs, at least one, in each setup, fastest first.

    `within`: seconds in which the workers should end.
    """
    found = []
    for setup, costs in measured.items():
        seconds, ends = estimate_seconds(costs, gmacs), estimate_range(costs, gmacs)
        assert seconds is not None and ends is not None  # something was measured
        least, most = min(costs)[0], max(costs)[0]
        outside = sum(cost is None or not least <= cost <= most for cost in gmacs)
        longest = max(estimate_seconds(costs, [cost]) or 0.0 for cost in gmacs)
        workers = None if longest > within else math.ceil(ends[1] / within)
        found.append(MachineCost(setup, seconds, ends, len(costs), outside, workers))
    return sorted(found, key=lambda cost: cost.seconds)
