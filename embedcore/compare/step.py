"""Steps in a series: lasting changes of its level; pure functions on numbers.

A step lies between run i - 1 and run i of a series if the medians of up to `WINDOW` runs on either
side differ by more than the limit and by more than `Z` standard errors. If a side has only two runs, the one nearer to
the other side counts, so that a single outlier in the middle of a series makes no step. (A change-point library reports
two steps there, and none in the newest run.) Among such places the one with the largest jump, or a neighbour that fits
both levels better, is taken, and its two sides are searched recursively. A step in the newest run rests on that run
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

WINDOW = 3
"""Number of runs on either side of a step that are compared."""
Z = 4.0
"""A false step has a probability of about 1 in 10,000 per run and series; a history has many of both."""


def find_steps(values: Sequence[float], limit: float, spread: float) -> list[int]:
    """Return the indices at which a series makes a step, as the module describes.

    `limit`, and `spread`, the standard deviation of a value around its level, are in the unit of `values`.

    >>> find_steps([10, 10, 7, 10, 10, 6, 6, 6], 1, 0.1)
    [5]
    """
    found = []
    for place in range(1, len(values)):
        before, after = values[max(0, place - WINDOW) : place], values[place : place + WINDOW]
        (low, high), (below, above) = _level(before), _level(after)
        difference = max(below - high, low - above, 0.0)
        error = spread * math.sqrt(math.pi / 2 * (1 / len(before) + 1 / len(after)))
        if difference > max(limit, Z * error):
            found.append(place)
    if not found:
        return []
    first = max(found, key=lambda place: abs(values[place] - values[place - 1]))
    start, end = max(0, first - WINDOW), first + WINDOW
    base, new = median(values[start:first]), median(values[first:end])

    def misfit(place: int) -> float:
        return sum(abs(v - base) for v in values[start:place]) + sum(abs(v - new) for v in values[place:end])

    place = min((place for place in found if start < place < end), key=misfit)
    later = [place + step for step in find_steps(values[place:], limit, spread)]
    return [*find_steps(values[:place], limit, spread), place, *later]


def _level(values: Sequence[float]) -> tuple[float, float]:
    """Return the median twice; for two values both, since either may be the outlier."""
    if len(values) == 2:
        return min(values), max(values)
    return (median(values),) * 2
