"""The speed ratio of two sides whose processes timed their rounds in turn, A B A B …; pure functions on numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from embedcore.compare.statistics import LEVEL, Doubles

NOISE = 0.015
"""Standard deviation of the log ratio of a pair of processes that run the same, where no `ab --aa` has found it."""

ALARMS = 0.01
"""How often a comparison may fail though nothing is slower: over all its models and looks together."""

LOOKS = (2, 3, 4, 6, 8, 12)
"""After how many pairs of processes the ratio is looked at; the last is the most there are."""

# How many ratios the assumed noise is worth beside those that were measured.
_PRIOR = 20

# Ratios further from the median than this many standard deviations count as if they were so far: one process that was
# disturbed must not decide.
_CLIP = 2.0
_EFFICIENCY = 1.1  # error of the clipped mean over that of the mean, for normal errors and few values


class Interleaved(NamedTuple):
    """Speed of B over A, with its 95 % interval and the one that holds for all models and looks together."""

    ratio: float
    low: float
    high: float
    surely_low: float
    surely_high: float
    p: float
    """Two-sided, not corrected."""
    noise: float
    """Standard deviation of the log ratio of a pair of processes."""
    pairs: int

    @property
    def slower(self) -> bool:
        """Whether B is slower beyond chance."""
        return self.surely_high < 1

    def alarms(self, limit: float) -> bool:
        """Whether B is slower beyond chance, and may be so by `limit`, a fraction of 1.

        Not whether the estimate exceeds the limit, which finds a fall of just that size half of the time only.
        """
        return self.slower and self.low <= 1 - limit

    def settled(self, limit: float) -> bool:
        """Whether a fall of `limit` is beyond chance not what is there, from an interval narrower than the limit."""
        return self.surely_low > 1 - limit and self.high - self.low <= limit


_TRIMMED = 0.25


def in_turn(base: ArrayLike, new: ArrayLike) -> tuple[float, float]:
    """Log of the speed of `new` over that of `base`, and its standard error, from the seconds of rounds in turn.

    Each float [n], n of 3 or more, the rounds of the same number next to each other in time, so that what slows both
    cancels. The mean of the middle half of the log ratios, since single rounds are disturbed much and often; its error
    from the winsorised variance (Tukey and McLaughlin, Sankhya A 25, 1963).

    >>> in_turn([1.0, 2.0, 4.0, 1.0], [0.5, 1.0, 2.0, 9.0])
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
    """How many rounds a process is to time: as many as take two seconds, 10 to 100, and no fewer than it did.

    >>> rounds_for([0.04] * 10), rounds_for([2.0])
    (50, 10)
    """
    return max(FEWEST_ROUNDS, len(durations), min(MOST_ROUNDS, round(TIMED_S / float(np.median(durations)))))


def ratio_of(pairs: ArrayLike, *, models: int, noise: float = NOISE) -> Interleaved:
    """The ratio that the log ratios of B over A of pairs of processes tell, float [n] with n of 2 or more.

    Their mean after clipping (Huber's M-estimator, one step from the median); its error from a variance to which
    `noise` adds 20 degrees of freedom, since that of few values may be small by chance (Smyth, Stat. Appl. Genet. Mol.
    Biol. 3, 2004).
    """
    values = np.asarray(pairs, dtype=np.float64)
    center = float(np.median(values))
    spread = max(noise, 1.4826 * float(np.median(np.abs(values - center))))
    clipped = np.clip(values, center - _CLIP * spread, center + _CLIP * spread)
    mean = float(clipped.mean())
    freedom = len(values) - 1 + _PRIOR
    squares = float(np.square(clipped - mean).sum())
    # Where the values themselves say more, a noise that was assumed too small must not make them sure.
    variance = max((_PRIOR * noise**2 + squares) / freedom, squares / (len(values) - 1))
    error = _EFFICIENCY * math.sqrt(variance / len(values))
    usual = error * float(special.stdtrit(freedom, (1 + LEVEL) / 2))
    sure = error * float(special.stdtrit(freedom, 1 - ALARMS / (len(LOOKS) * max(1, models))))
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    low, high, surely_low, surely_high = (math.exp(mean + by) for by in (-usual, usual, -sure, sure))
    return Interleaved(math.exp(mean), low, high, surely_low, surely_high, p, math.sqrt(variance), len(values))


def pooled_noise(ratios: Sequence[Sequence[float]]) -> float | None:
    """The noise that the scatter of each model's log ratios around their own median shows, of all models together.

    None where they are too few to tell: with less than 15 degrees of freedom.
    """
    known = [np.asarray(own, dtype=np.float64) for own in ratios if len(own) > 1]
    if sum(len(own) - 1 for own in known) < 15:
        return None
    return noise_of([((own - np.median(own)) * math.sqrt(len(own) / (len(own) - 1))).tolist() for own in known])


def noise_of(ratios: Sequence[Sequence[float]]) -> float:
    """Standard deviation of the log ratio of two processes that run the same, from those of several models.

    From the median of their absolute values, which a few disturbed processes do not change.
    """
    values: Doubles = np.abs(np.concatenate([np.asarray(own, dtype=np.float64) for own in ratios]))
    return float(np.median(values) / stats.norm.ppf(0.75))
