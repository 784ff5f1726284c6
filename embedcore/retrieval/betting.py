"""Betting against a hypothesis: wealth that grows if the hypothesis is wrong, and rarely if it is right.

Under the hypothesis that differences of at least -1 have a mean of at most 0, the wealth of a player who stakes a share
of it on each difference, before seeing it, is a supermartingale: the probability that it ever reaches c times its
initial value is at most 1 / c (Ville, 1939), however few differences there are and whenever one looks. Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), section 5 for draws without
replacement.
"""

from __future__ import annotations

import numpy as np

from embedcore.retrieval.tiles import DoubleArray

STAKES = np.geomspace(0.15, 0.9, 3)
"""Share of the wealth that each player stakes; all begin with equal wealth. The best share for a mean m with variance v
is about m / (v + m²)."""


def log_gains(differences: DoubleArray, population: int, start: int = 0) -> DoubleArray:
    """Return the change of the log wealth of each of `STAKES` after each difference from ``start`` on.

    The hypothesis is that the mean over the ``population`` is at most 0. After t draws with the sum s, the mean of the
    others is then at most -s / (population - t), and the players bet against that.

    Args:
        differences: [..., n], at least -1, in the order drawn.
        population: number that could be drawn, at least n.
        start: number of differences that are already in the wealth.

    Returns:
        [..., n - start, stakes].

    >>> log_gains(np.array([0.5, 0.5, -0.5, 0.5]), population=100)[:, -1].round(2).tolist()
    [0.37, 0.75, 0.16, 0.54]
    """
    count = differences.shape[-1]
    drawn = np.arange(start, count)
    before = np.cumsum(differences, axis=-1) - differences
    means = -before[..., start:] / (population - drawn)
    odds = (differences[..., start:] - means) / (1.0 + np.maximum(means, 0.0))  # at least -1
    return np.stack([np.log1p(stake * odds).cumsum(axis=-1) for stake in STAKES], axis=-1)


def log_wealth(of_players: DoubleArray) -> DoubleArray:
    """Return the log of the players' mean wealth, from the log wealth of each, [..., stakes]."""
    return np.asarray(np.logaddexp.reduce(of_players, axis=-1) - np.log(of_players.shape[-1]))
