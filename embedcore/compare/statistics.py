"""Is a difference real? Tests and intervals for paired scores and for speeds; pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from embedcore.retrieval.resampling import class_counts

Doubles = NDArray[np.float64]

LEVEL = 0.95
Z = float(stats.norm.ppf((1 + LEVEL) / 2))

_RESAMPLES = 1000
_BLOCK = 128  # models whose class sums are held at once


class Paired(NamedTuple):
    """Mean differences new - base of m models [m], their 95 % intervals and two-sided p-values."""

    difference: Doubles
    low: Doubles
    high: Doubles
    p: Doubles


def mcnemar(worse: ArrayLike, better: ArrayLike) -> Doubles:
    """Exact two-sided p-values of McNemar's test (Psychometrika 12, 1947): are losses and gains equally likely?

    `worse` and `better`: integers [m], how many queries were right only before, and only after.

    >>> mcnemar([10, 3, 0], [0, 3, 0]).round(4).tolist()
    [0.002, 1.0, 1.0]
    """
    worse, better = np.asarray(worse), np.asarray(better)
    tail = stats.binom.cdf(np.minimum(worse, better), worse + better, 0.5)
    return np.asarray(np.minimum(1.0, 2 * tail), dtype=np.float64)


def paired_by_class(
    differences: Sequence[NDArray[np.int8]], classes: NDArray[np.integer], unit: float, *, seed: int = 0
) -> Paired:
    """Mean differences with intervals by resampling whole classes, since queries of one class are not independent.

    The interval holds the middle 95 % of 1,000 resamples, the same for all models; the p-value is that of the
    difference over its standard error clustered by class (Liang and Zeger, Biometrika 73, 1986), with C - 1 degrees of
    freedom. With one class alone nothing is known of others: p is 1.

    Args:
        differences: for each model int8 [n_queries], new - base in steps of `unit`.
        classes: integers [n_queries], the class of each query.
        unit: what a step is worth, such as 1/5 for one hit more among the five nearest.
        seed: of the resamples.
    """
    queries = len(classes)
    _, which, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    count = len(sizes)
    draws = np.concatenate(list(class_counts(count, _RESAMPLES, seed))).astype(np.float32) if count > 1 else None
    parts = []
    for first in range(0, len(differences), _BLOCK):
        block = np.stack(differences[first : first + _BLOCK])[:, order]
        sums = np.add.reduceat(block, starts, axis=1, dtype=np.float32)
        mean = sums.sum(axis=1, dtype=np.float64) / queries
        if draws is None:
            parts.append(Paired(mean, np.full_like(mean, -1 / unit), np.full_like(mean, 1 / unit), np.ones_like(mean)))
            continue
        resampled = (sums @ draws.T) / (draws @ sizes.astype(np.float32))
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
        residual = sums - mean[:, None] * sizes
        error = np.sqrt(count / (count - 1) * np.square(residual, dtype=np.float64).sum(axis=1)) / queries
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.where(mean == 0, 1.0, 2 * stats.t.sf(np.abs(mean) / error, count - 1))
        parts.append(Paired(mean, np.minimum(low, mean), np.maximum(high, mean), p))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Paired(joined[0] * unit, joined[1] * unit, joined[2] * unit, joined[3])


def false_discovery(p: ArrayLike) -> Doubles:
    """p-values [m] adjusted so that of those at most .05 one in twenty is false (Benjamini and Hochberg, 1995).

    >>> false_discovery([0.01, 0.04, 0.5]).round(3).tolist()
    [0.03, 0.06, 0.5]
    """
    values = np.asarray(p, dtype=np.float64)
    return np.asarray(stats.false_discovery_control(values), dtype=np.float64) if values.size else values


class Ratio(NamedTuple):
    """A ratio of speeds new / base with its 95 % interval and two-sided p-value."""

    ratio: float
    low: float
    high: float
    p: float


def speed_ratio(base: Sequence[float], new: Sequence[float], noise: float, images: tuple[int, int] = (1, 1)) -> Ratio:
    """Speed of `new` over that of `base`, both the seconds of timing rounds of `images` images each.

    On the log scale, since a ratio and its inverse must say the same. The error of each median comes from the quartiles
    of its rounds (1.2533 sd / sqrt(n), with sd = IQR / 1.349); `noise` is added, the standard deviation of the log
    ratio between two processes that run the same: rounds of one process agree better than processes do.

    >>> speed_ratio([2.0] * 10, [1.0] * 10, 0.01).ratio
    2.0
    """
    logs = [
        np.log(np.asarray(rounds, dtype=np.float64) / size) for rounds, size in zip((base, new), images, strict=True)
    ]
    variance = noise**2
    for values in logs:
        low, high = np.quantile(values, [0.25, 0.75])
        variance += (1.2533 * (high - low) / 1.349) ** 2 / len(values)
    center = float(np.median(logs[0]) - np.median(logs[1]))
    error = math.sqrt(variance)
    p = float(2 * stats.norm.sf(abs(center) / error)) if error > 0 else float(center == 0)
    return Ratio(math.exp(center), math.exp(center - Z * error), math.exp(center + Z * error), p)


def embedding_drift(base: NDArray[np.float32], new: NDArray[np.float32]) -> float:
    """How far embeddings moved: mean distance of a row of sketch [m, 64] from itself, over the mean length of a row.

    A sketch keeps lengths up to chance (`embedcore.embed.sketch`), so .1 means a tenth of an embedding's length: a
    cosine similarity of about .995 between before and after.

    >>> embedding_drift(np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]]))
    0.1
    """
    before, after = base.astype(np.float64), new.astype(np.float64)
    length = float(np.linalg.norm(before, axis=1).mean())
    moved = float(np.linalg.norm(after - before, axis=1).mean())
    return moved / length if length > 0 else float("inf") if moved > 0 else 0.0


def rank_intervals(sums: NDArray[np.float32], sizes: NDArray[np.integer], *, seed: int = 0) -> NDArray[np.int64]:
    """Rank of each model by its mean, and the 95 % interval of the rank when classes are resampled: integers [m, 3].

    `sums` [m, C]: of each model the sum over the queries of each class; `sizes` [C]: queries of each class.
    The intervals are of each model alone, not simultaneous over all.
    """
    totals = sums.sum(axis=1, dtype=np.float64)
    ranks = stats.rankdata(-totals, method="min").astype(np.int64)
    if len(sizes) == 1:
        return np.stack([ranks, np.ones_like(ranks), np.full_like(ranks, len(ranks))], axis=1)
    draws = np.concatenate(list(class_counts(len(sizes), 200, seed))).astype(np.float32)
    resampled = stats.rankdata(-(sums @ draws.T), method="min", axis=0)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1, method="nearest").astype(np.int64)
    return np.stack([ranks, np.minimum(low, ranks), np.maximum(high, ranks)], axis=1)
