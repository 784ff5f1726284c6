"""Tests and intervals for paired scores and for speeds; pure functions on arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Doubles = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of all intervals."""
SIGNIFICANT = 0.05
"""Level of all tests, after correction for their number."""


class Paired(NamedTuple):
    """Mean differences new - base of m models [m], and their 95 % intervals."""

    difference: Doubles
    low: Doubles
    high: Doubles


class Flips(NamedTuple):
    """A two-sided p-value of `sign_flips`, and the smallest that it could have been."""

    p: float
    least: float


NOTHING = Flips(1.0, 1.0)
"""The test of units without a difference."""

_NEGLIGIBLE = 1e-18
_FREQUENCIES = 2**16  # at once
_ROUNDING = 1 + 1e-9  # of a p-value that is its test's smallest


def sign_flips(differences: NDArray[np.integer]) -> Flips:
    """Return the exact two-sided p-value of a sum of differences if each may as well have the other sign.

    The units are exchangeable between before and after under the hypothesis: with classes as units, a class in which
    many queries change together counts as one (Fisher's randomisation test; The Design of Experiments, 1935, 21). The
    distribution of the sum over all 2^n signs follows from its characteristic function, a product of cosines, by the
    inversion formula on a lattice; the absolute error is below 1e-12. Of differences of 1 and -1 it is McNemar's test.

    Args:
        differences: integers [n], new - base of each unit.

    >>> sign_flips(np.array([-1] * 6))
    Flips(p=0.03125, least=0.03125)
    >>> sign_flips(np.array([-6])), sign_flips(np.array([3, -2, -1]))
    (Flips(p=1.0, least=1.0), Flips(p=1.0, least=0.25))
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    total, seen = int(sizes @ counts), abs(int(differences.sum()))
    if not total:
        return NOTHING
    least = 2.0 ** (1 - int(counts.sum()))
    # The sum of the differences of one sign is at most `last` in the tail, and at most `total`.
    last, points = (total - seen) // 2, (total + 1) | 1
    tail = (last + 1) / points
    by_count = np.argsort(-counts)
    for start in range(1, points // 2 + 1, _FREQUENCIES):
        frequency = np.arange(start, min(start + _FREQUENCIES, points // 2 + 1))
        wave = np.ones(len(frequency))
        for size, count in zip(sizes[by_count].tolist(), counts[by_count].tolist(), strict=True):
            wave *= np.cos(np.pi / points * (size * frequency % (2 * points))) ** count
            kept = np.abs(wave) > _NEGLIGIBLE
            frequency, wave = frequency[kept], wave[kept]
        half = np.pi / points * frequency
        wave *= np.cos(half * (total - last)) * np.sin(half * (last + 1)) / np.sin(half)
        tail += 2 / points * float(wave.sum())
    return Flips(min(1.0, max(2 * tail, least)), least)


def paired_by_class(sums: NDArray[np.floating], sizes: NDArray[np.integer]) -> Paired:
    """Return mean differences with intervals clustered by class, since queries of one class are not independent.

    This is the limit of a bootstrap over classes: the cluster-robust standard error (Liang and Zeger, Biometrika 73,
    1986) with Student's t of C - 1 degrees of freedom, which is wider for few classes.

    Args:
        sums: [m, C], for each model the sum of new - base over the queries of each class.
        sizes: [C], queries of each class.
    """
    mean, error = errors_by_class(sums, sizes)
    if len(sizes) == 1:
        return Paired(mean, -error, error)
    half = special.stdtrit(len(sizes) - 1, (1 + LEVEL) / 2) * error
    return Paired(mean, mean - half, mean + half)


def errors_by_class(sums: NDArray[np.floating], sizes: NDArray[np.integer]) -> tuple[Doubles, Doubles]:
    """Return mean differences [m], and their standard errors clustered by class [m]; arguments as `paired_by_class`.

    The errors are infinite for one class.
    """
    queries, count = sizes.sum(), len(sizes)
    mean = sums.sum(axis=1, dtype=np.float64) / queries
    if count == 1:
        return mean, np.full_like(mean, np.inf)
    residual = sums - mean[:, None] * sizes
    return mean, np.sqrt(count / (count - 1) * np.einsum("mc,mc->m", residual, residual)) / queries


def false_discovery(p: ArrayLike, least: ArrayLike = 0.0) -> Doubles:
    """Return p-values [m] adjusted for the false discovery rate (Benjamini and Hochberg, 1995).

    `least`: the smallest p-value that each test could have had. A test that cannot reach p does not count among the
    tests at p (Tarone, Biometrics 46, 1990; for the false discovery rate Gilbert, Applied Statistics 54, 2005, and
    Heyse, 2011): models without a changed query do not hide the one that fell. Without it the result is that of
    `scipy.stats.false_discovery_control`, whose module takes a second to import.

    >>> false_discovery([0.01, 0.04, 0.5]).round(3).tolist()
    [0.03, 0.06, 0.5]
    >>> false_discovery([0.01, 0.04, 1.0], [0.001, 0.03, 1.0]).round(3).tolist()
    [0.01, 0.04, 1.0]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)[::-1]
    floors = np.sort(np.broadcast_to(np.asarray(least, dtype=np.float64), values.shape))
    counted = np.searchsorted(floors, values[order] * _ROUNDING, side="right")
    scaled = values[order] * counted / np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled))
    return adjusted


def robust_sd(deviations: ArrayLike) -> float:
    """Return the standard deviation of normal deviations from 0, robust to outliers: from their median absolute value.

    >>> round(robust_sd([0.1, -0.1, 0.1, 5.0]), 5)
    0.14826
    """
    return 1.4826 * float(np.median(np.abs(deviations)))


def embedding_drift(base: NDArray[np.float32], new: NDArray[np.float32]) -> float:
    """Return the drift: mean distance between the rows of two sketches [m, 64] over the mean length of a row.

    A sketch preserves lengths approximately (`embedcore.embed.sketch`): a drift of .1 is a tenth of an embedding's
    length, or a cosine similarity of about .995 between before and after.

    >>> embedding_drift(np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]]))
    0.1
    """
    before, after = base.astype(np.float64), new.astype(np.float64)
    length = float(np.linalg.norm(before, axis=1).mean())
    moved = float(np.linalg.norm(after - before, axis=1).mean())
    return moved / length if length > 0 else float("inf") if moved > 0 else 0.0
