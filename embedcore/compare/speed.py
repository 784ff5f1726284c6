"""The fall of speed between two sessions from replicate processes; pure functions on numbers.

All values are logarithms of seconds, so a difference of .05 is a change of about 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from scipy import special

from embedcore.compare.interleaved import ALARMS
from embedcore.compare.statistics import LEVEL, robust_sd

PRIOR_FREEDOM = 6
"""Degrees of freedom of the assumed noise, for rosters that are too small to show theirs."""

_SHRINKAGE = 8  # degrees of freedom of the pooled noise in the noise of each model, which may differ (Smyth 2004)
_CLIP = 3.0  # standard deviations; a process further from its side's mean counts as this far in the pooled noise

SHIFT = 0.02
"""A smaller shift of the reference kernel is not a machine that changed."""
_SURE = 3.3  # standard errors of a shift


class Replicates(NamedTuple):
    """Log seconds per image of one model in each process of both sides, two or more each."""

    base: Sequence[float]
    new: Sequence[float]


class Fall(NamedTuple):
    """The fall of a speed as a fraction of 1, negative if faster, with its 95 % interval."""

    fall: float
    low: float
    high: float
    sure: float
    """Lower bound at 1 %, simultaneous for all models."""
    p: float
    """Two-sided p-value, not corrected."""


class Noise(NamedTuple):
    """Standard deviation of the log speed between processes of one session, and its degrees of freedom."""

    sd: float
    freedom: int
    """Without those of the prior."""


class Shift(NamedTuple):
    """Log ratio of the reference kernel's seconds, new over base, with its standard error."""

    shift: float
    error: float

    @property
    def sure(self) -> bool:
        return abs(self.shift) > max(SHIFT, _SURE * self.error)


def falls(cases: Sequence[Replicates], prior: float, *, models: int, drift: float = 0.0) -> tuple[list[Fall], Noise]:
    """Return the fall of each model and the noise.

    The noise is the scatter of processes within a side, pooled over all models, with `prior`, an assumed standard
    deviation. The variance of each model is shrunk towards the pooled one (Smyth, Stat. Appl. Genet. Mol. Biol. 3,
    2004), so that a lucky pair of processes does not make an interval too narrow.
    `models`: number of speeds tested at once. `drift`: standard deviation of what all processes of one side have in
    common, which their scatter does not show.

    >>> falls([Replicates([0.0, 0.0], [0.5, 0.5])], 0.01, models=1)[0][0].fall.__round__(3)
    0.393
    """
    pooled = [pooled_noise(cases, prior, clipped=clipped) for clipped in (True, False)]
    usual, wild = (
        (PRIOR_FREEDOM * prior**2 + found.freedom * found.sd**2) / (PRIOR_FREEDOM + found.freedom) for found in pooled
    )
    found = [_fall(case, usual, wild, drift, max(1, models)) for case in cases]
    return found, Noise(math.sqrt(usual), pooled[0].freedom)


def pooled_noise(cases: Sequence[Replicates], prior: float, *, clipped: bool = True) -> Noise:
    """Return the noise of the processes alone; `prior` serves to recognise outliers, which are `clipped`."""
    sides = [side for case in cases for side in case]
    freedom = sum(len(side) - 1 for side in sides)
    if not freedom:
        return Noise(prior, 0)
    deviations = np.array(
        [(value - fmean(side)) * math.sqrt(len(side) / (len(side) - 1)) for side in sides for value in side]
    )
    reach = _CLIP * max(prior, robust_sd(deviations)) if clipped else math.inf
    return Noise(math.sqrt(float(np.square(np.clip(deviations, -reach, reach)).mean())), freedom)


def _fall(case: Replicates, usual: float, wild: float, drift: float, models: int) -> Fall:
    """Return the fall of one model.

    `usual`, `wild`: pooled variances without and with outliers. Only the second makes a fall sure: where processes are
    disturbed now and then, both of one side may be.
    """
    rise = _center(case.new) - _center(case.base)
    freedom = _SHRINKAGE + sum(len(side) - 1 for side in case)
    squares = sum((value - fmean(side)) ** 2 for side in case for value in side)
    share = sum(1 / len(side) for side in case) / freedom
    error, largest = (
        math.sqrt((_SHRINKAGE * variance + squares) * share + 2 * drift**2) for variance in (usual, max(usual, wild))
    )
    half = error * float(special.stdtrit(freedom, (1 + LEVEL) / 2))
    sure = largest * float(special.stdtrit(freedom, 1 - ALARMS / models))
    p = 2 * float(special.stdtr(freedom, -abs(rise) / error)) if error > 0 else float(rise == 0)
    fall, low, high, surely = (1 - math.exp(-by) for by in (rise, rise - half, rise + half, rise - sure))
    return Fall(fall, low, high, surely, p)


def _center(values: Sequence[float]) -> float:
    """Return the mean, without the extremes of five or more."""
    ordered = sorted(values)
    cut = len(ordered) // 5
    return fmean(ordered[cut : len(ordered) - cut])


def smallest_seen(change: float, sure: float, limit: float) -> float:
    """Return the smallest fall that would certainly exceed the limit, given the error of a measured one.

    `change`, `sure`: as in `Fall`; `limit`: a fraction below 1.
    """
    return 1 - (1 - limit) * (1 - change) / (1 - sure)


def shift_of(base: Sequence[float], new: Sequence[float]) -> Shift:
    """Return the shift of the medians of two sessions, from a log of seconds of each process; two or more each."""
    middles = median(base), median(new)
    error = 0.0
    for side, middle in zip((base, new), middles, strict=True):
        error += (1.2533 * robust_sd(np.asarray(side) - middle)) ** 2 / len(side)
    return Shift(middles[1] - middles[0], math.sqrt(error))
