"""The speed ratio of two sides whose processes alternate their timing rounds, A B A B …; pure functions on numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from embedcore.compare.statistics import LEVEL, Doubles, robust_sd

NOISE = 0.015
"""Standard deviation of the log ratio of two identical processes, unless `ab --aa` has measured it."""

ALARMS = 0.01
"""False alarm rate of a whole comparison: over all its models and all looks at the data."""

LOOKS = (2, 3, 4, 6, 8, 12, 16, 24)
"""The ratio is tested after these numbers of pairs of processes; the last one is the maximum."""

_PRIOR = 20  # degrees of freedom that the assumed noise adds to those of the measured ratios
_CLIP = 2.0  # standard deviations; ratios further from the median are clipped, so that no single process decides
_EFFICIENCY = 1.1  # error of the clipped mean over that of the mean, for few normal values
_TRIMMED = 0.25  # share of the rounds left out at either end


class Interleaved(NamedTuple):
    """Speed of B over A with its 95 % interval, and the interval that is simultaneous for all models and looks."""

    ratio: float
    low: float
    high: float
    lowest: float
    """Lower end of the 99 % interval."""
    surely_low: float
    surely_high: float
    p: float
    """Two-sided p-value, not corrected."""
    noise: float
    """Standard deviation of the log ratio of a pair of processes."""
    pairs: int

    @property
    def slower(self) -> bool:
        """Whether B is significantly slower."""
        return self.surely_high < 1

    def alarms(self, limit: float) -> bool:
        """Whether B is significantly slower and `limit`, a fraction of 1, is not below the 99 % interval.

        A test of the estimate against the limit would find a fall of exactly that size only half of the time, and the
        95 % interval loses one in twenty, since an alarm must persist.
        """
        return self.slower and self.lowest <= 1 - limit

    def settled(self, limit: float) -> bool:
        """Whether a fall of `limit` is excluded by an interval narrower than the limit."""
        return self.surely_low > 1 - limit and self.high - self.low <= limit


def paired_ratio(base: ArrayLike, new: ArrayLike) -> tuple[float, float]:
    """Return the log of the speed of `new` over that of `base`, and its standard error, from alternating rounds.

    `base`, `new`: seconds, float [n] with n of 3 or more; rounds of equal number are neighbours in time, so that a
    disturbance of both cancels. The estimate is the mean of the middle half of the log ratios, because single rounds
    are often disturbed; its error comes from the winsorised variance (Tukey and McLaughlin, Sankhya A 25, 1963).

    >>> paired_ratio([1.0, 2.0, 4.0, 1.0], [0.5, 1.0, 2.0, 9.0])
    (0.6931471805599453, 0.0)
    """
    logs: Doubles = np.sort(np.log(np.asarray(base, dtype=np.float64) / np.asarray(new, dtype=np.float64)))
    cut = round(_TRIMMED * len(logs))
    middle = logs[cut : len(logs) - cut]
    spread = float(np.clip(logs, middle[0], middle[-1]).std(ddof=1))
    return float(middle.mean()), spread / ((1 - 2 * _TRIMMED) * math.sqrt(len(logs)))


TIMED_S = 2.0
FEWEST_ROUNDS, MOST_ROUNDS = 10, 100


def rounds_for(durations: Sequence[float]) -> int:
    """Return the number of rounds that take two seconds, between 10 and 100, and at least ``len(durations)``.

    >>> rounds_for([0.04] * 10), rounds_for([2.0])
    (50, 10)
    """
    return max(FEWEST_ROUNDS, len(durations), min(MOST_ROUNDS, round(TIMED_S / float(np.median(durations)))))


def ratio_of(pairs: ArrayLike, *, models: int, noise: float = NOISE) -> Interleaved:
    """Return the speed ratio from the log ratios B over A of pairs of processes, float [n] with n of 2 or more.

    Estimate: mean of the clipped values (Huber's M-estimator, one step from the median). Error: from a variance to
    which `noise` adds 20 degrees of freedom, since the variance of few values can be small by chance (Smyth, Stat.
    Appl. Genet. Mol. Biol. 3, 2004). `models`: number of models compared at once.
    """
    values = np.asarray(pairs, dtype=np.float64)
    center = float(np.median(values))
    spread = max(noise, robust_sd(values - center))
    clipped = np.clip(values, center - _CLIP * spread, center + _CLIP * spread)
    mean = float(clipped.mean())
    freedom = len(values) - 1 + _PRIOR
    squares = float(np.square(clipped - mean).sum())
    # The second keeps an assumed noise that is too small from narrowing the interval.
    variance = max((_PRIOR * noise**2 + squares) / freedom, squares / (len(values) - 1))
    error = _EFFICIENCY * math.sqrt(variance / len(values))
    usual = error * float(special.stdtrit(freedom, (1 + LEVEL) / 2))
    sure = error * float(special.stdtrit(freedom, 1 - ALARMS / (len(LOOKS) * max(1, models))))
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    wide = error * float(special.stdtrit(freedom, 0.995))
    low, high, lowest, surely_low, surely_high = (math.exp(mean + by) for by in (-usual, usual, -wide, -sure, sure))
    return Interleaved(math.exp(mean), low, high, lowest, surely_low, surely_high, p, math.sqrt(variance), len(values))


def pooled_noise(ratios: Sequence[Sequence[float]]) -> float | None:
    """Return the noise from each model's log ratios around their median; None below 15 degrees of freedom."""
    known = [np.asarray(logs, dtype=np.float64) for logs in ratios if len(logs) > 1]
    if sum(len(logs) - 1 for logs in known) < 15:
        return None
    return robust_sd(
        np.concatenate([(logs - np.median(logs)) * math.sqrt(len(logs) / (len(logs) - 1)) for logs in known])
    )
