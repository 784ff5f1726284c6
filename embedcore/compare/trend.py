"""Trends in a series: a steady rate over several runs, told apart from steps; pure functions on numbers.

A trend is a ramp: constant up to a run, a straight line over at least `LEAST_RUNS` runs, and constant after them. The
ramp that explains most of the variance is a trend if

- it moves the series by more than the limit,
- its slope differs from 0 by more than `Z` standard errors; for few runs by more, as with Student's t,
- it fits better than steps do (Schwarz, Ann. Stat. 6, 1978; a residual beyond `_CLIP` standard deviations counts as
  that much, so that no single run decides).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from embedcore.compare.statistics import Doubles, robust_sd
from embedcore.compare.step import find_steps

LEAST_RUNS = 6
"""Number of runs of the shortest trend."""
Z = 4.5
"""Larger than that of a step, since the best one of many ramps is tested."""
_PRIOR = 3  # degrees of freedom of the assumed noise; with Z less than 3 of 1,000 series of noise have a trend

_MOST_RAMPS = 3  # of a series
_MOST_STEPS = 8  # between which trends are searched
_MOST_PLACES = 60  # a longer series is searched in a coarser grid of starts and ends
_CLIP = 4.0


class Ramp(NamedTuple):
    """A line from index `start` to index `last`; `slope` is the change from one value to the next."""

    start: int
    last: int
    slope: float

    @property
    def change(self) -> float:
        return self.slope * (self.last - self.start)

    def line(self, count: int) -> Doubles:
        """Return its part of each of `count` values [count]: 0 up to `start`, `change` from `last` on."""
        return self.slope * (np.clip(np.arange(count, dtype=np.float64), self.start, self.last) - self.start)


def spread_of(values: Sequence[float], least: float) -> float:
    """Return the standard deviation of values around their level or line, robust to steps, and at least `least`.

    It comes from the differences between neighbours around their median, which is the slope of a trend. With fewer
    than `LEAST_RUNS` values it is `least`.
    """
    if len(values) < LEAST_RUNS:
        return least
    differences = np.diff(values)
    return max(least, robust_sd(differences - np.median(differences)) / math.sqrt(2))


def find_ramps(values: Sequence[float], limit: float, spread: float) -> list[Ramp]:
    """Return the trends of a series, as the module describes, in order.

    `limit`, and `spread`, the standard deviation of a value around its line, are in the unit of `values`.

    >>> find_ramps([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0], 1, 0.1)
    [Ramp(start=2, last=7, slope=1.0)]
    """
    ramps: list[Ramp] = []
    while len(ramps) < _MOST_RAMPS:
        rest = np.asarray(values, dtype=np.float64) - lines(ramps, len(values))
        steps = find_steps(rest.tolist(), limit, spread)
        # A step before or after a trend hides it, so the parts between steps are searched as well, longest first.
        parts = sorted(itertools.combinations([0, *steps[:_MOST_STEPS], len(rest)], 2), key=lambda p: p[0] - p[1])
        found = (_find_ramp(rest, start, end, limit, spread, steps) for start, end in parts)
        ramp = next(filter(None, found), None)
        if ramp is None:
            break
        ramps.append(ramp)
    return sorted(ramps)


def lines(ramps: Sequence[Ramp], count: int) -> Doubles:
    """Return the sum of the lines of ramps at each of `count` values [count]."""
    return np.sum([ramp.line(count) for ramp in ramps], axis=0) if ramps else np.zeros(count)


def _find_ramp(values: Doubles, begin: int, end: int, limit: float, spread: float, steps: Sequence[int]) -> Ramp | None:
    """Return the ramp that is a trend from index `begin` up to `end`; `steps`: those to which it is an alternative."""
    series, steps = values[begin:end], [step - begin for step in steps if begin < step < end]
    ramp = _ramp_of(series, limit, spread, steps)
    return ramp and Ramp(ramp.start + begin, ramp.last + begin, ramp.slope)


def _ramp_of(series: Doubles, limit: float, spread: float, steps: Sequence[int]) -> Ramp | None:
    count = len(series)
    if count < LEAST_RUNS:
        return None
    smooth = series.copy()  # without single outliers
    smooth[1:-1] = np.median([series[:-2], series[1:-1], series[2:]], axis=0)
    starts, lasts, lengths, ramps = _ramps(count)
    along = ramps @ smooth  # the ramps have mean 0 and length 1, so its square is the variance that each explains
    slopes = along / lengths
    large = np.abs(slopes) * (lasts - starts) > limit
    if not large.any():
        return None
    best = int(np.argmax(np.where(large, np.abs(along), 0.0)))
    ramp = Ramp(int(starts[best]), int(lasts[best]), float(slopes[best]))
    # The same tail probability as Z of a normal distribution.
    if abs(along[best]) <= spread * float(-special.stdtrit(count - 2 + _PRIOR, special.ndtr(-Z))):
        return None
    rest = series - ramp.line(count)
    fit = _misfit([rest], spread) + 3 * math.log(count)  # level, slope and place
    return ramp if all(fit < _cost(series, edges, spread) for edges in (steps, [_best_step(series)])) else None


def _best_step(series: Doubles) -> int:
    """Return the index of the single step that explains most of the variance."""
    count = len(series)
    sizes = np.arange(1, count)
    before = np.cumsum(series)[:-1]
    means = before / sizes - (series.sum() - before) / (count - sizes)
    return 1 + int(np.argmax(means**2 * sizes * (count - sizes)))


def _cost(series: Doubles, steps: Sequence[int], spread: float) -> float:
    return _misfit(np.split(series, list(steps)), spread) + (1 + 2 * len(steps)) * math.log(len(series))


def _misfit(parts: Sequence[Doubles], spread: float) -> float:
    """Return the clipped squares of the deviations from the level of each part, in units of `spread`."""
    return sum(float(np.minimum(np.square((part - median(part)) / spread), _CLIP**2).sum()) for part in parts)


@functools.lru_cache(maxsize=64)
def _ramps(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Doubles, Doubles]:
    """Return starts, last places and lengths of all ramps of `count` values, and the ramps [n, count] themselves, with
    mean 0 and length 1."""
    grid = np.unique(np.linspace(0, count - 1, min(count, _MOST_PLACES)).round().astype(np.intp))
    starts, lasts = (index.reshape(-1) for index in np.meshgrid(grid, grid, indexing="ij"))
    long = lasts - starts >= LEAST_RUNS - 1
    starts, lasts = starts[long], lasts[long]
    ramps = np.clip(np.arange(count, dtype=np.float64), starts[:, None], lasts[:, None])
    ramps -= ramps.mean(axis=1, keepdims=True)
    lengths: Doubles = np.linalg.norm(ramps, axis=1)
    return starts, lasts, lengths, ramps / lengths[:, None]
