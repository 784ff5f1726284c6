"""Inference for ranks: simultaneous tests of all pairs of models, and the rank intervals that follow.

A model's best possible rank is one behind all models that are significantly better; its worst is one ahead of all that
are significantly worse. Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies 91
(2024), with a covariance clustered by class, since queries of a class are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from embedcore.retrieval.resampling import class_counts
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray

LEVEL = 0.95
POWER = 0.8

SENSIBLE = 1000
"""More than this many times the classes is not an estimate: the two best hardly differ, or one class has nearly all
queries."""

_EXACT = 2**24  # float32 represents all integers up to it
_CLASSES = 1024  # classes in float64 at once
_BLOCK = 16  # models that are compared with each other at once
# A smaller share of variance is rounding: the two models are right on the same queries.
NO_VARIANCE = 1e-9


@dataclass(frozen=True)
class Order:
    """An order of m models by a score.

    means: float64 [m], the scores · better: bool [m, m], whether model i is significantly better than model j, with
    family-wise error rate 1 - level · p_best: float64 [m], share of resamples in which a model is the best, divided
    among ties · classes_needed: number of classes like these with which the two best would differ significantly with
    80 % power; infinite if they are equal, there is one class, or the estimate is more than `SENSIBLE` times as many.
    """

    means: DoubleArray
    better: npt.NDArray[np.bool_]
    p_best: DoubleArray
    classes_needed: float

    def ranks(self, members: Sequence[int] | None = None) -> IntArray:
        """Return rank, best and worst possible rank, int64 [k, 3], of some models among themselves (None: all).

        Ties share the better rank. The intervals are simultaneous, also over several groups of models.
        """
        chosen = np.arange(len(self.means)) if members is None else np.asarray(members, dtype=np.int64)
        among, means = self.better[np.ix_(chosen, chosen)], self.means[chosen]
        rank = 1 + np.searchsorted(np.sort(-means), -means)
        ranks: IntArray = np.stack([rank, 1 + among.sum(axis=0), len(chosen) - among.sum(axis=1)], axis=1)
        return ranks


def order(
    sums: npt.NDArray[np.integer],
    sizes: npt.NDArray[np.integer],
    *,
    unit: float = 1.0,
    level: float = LEVEL,
    resamples: int = 1000,
    seed: int = 0,
) -> Order:
    """Order models by their mean over queries, with significance by a bootstrap of classes.

    All models are resampled together. The statistic of an ordered pair (i, j) is the difference of the means over its
    standard error, the jackknife's over classes, which is valid for classes of unequal size (Cameron and Miller,
    Journal of Human Resources 50, 2015). Its critical value is the quantile, over resamples, of the largest statistic
    of all pairs, converted to Student's t for the number of classes; in a step-down procedure, of the pairs that are
    not yet significant. The standard error is at least d / C for a difference d over C classes, as if one more class
    had no difference: up to three classes are never significant.

    The two best, which differ by d with an error e over C classes, need C * ((limit + 0.84) * e / d)^2 classes: e
    decreases with the root of their number, limit is the critical value, and .84 the normal quantile of 80 % power.

    Needs 4 bytes per class and model, and 60 per pair of models: with the arguments 270 MB for 1,826 models and 8,326
    classes.

    Args:
        sums: [m, C], each model's sum of scores over the queries of each class.
        sizes: [C], number of queries of each class, at least one.
        unit: score of a sum of 1.
        level: probability that no pair of models is put in the wrong order.
        resamples: number of resamples.
        seed: seed of the resamples.

    >>> classes = np.ones(40, dtype=np.int64)
    >>> order(np.stack([classes, classes, 0 * classes]), classes).ranks().tolist()
    [[1, 1, 2], [1, 1, 2], [3, 3, 3]]
    """
    models, classes = sums.shape
    means = sums.sum(axis=1) / sizes.sum()
    by_mean = np.argsort(-means, kind="stable")
    ordered, place = means[by_mean], np.argsort(by_mean)
    if classes < 2:
        best = ordered == ordered[0]
        return Order(means * unit, np.zeros((models, models), dtype=np.bool_), (best / best.sum())[place], math.inf)
    drawn = _drawn_means(sums[by_mean], sizes, resamples, seed)
    best = drawn == drawn.max(axis=0)
    p_best = (best / best.sum(axis=0)).mean(axis=1)
    drawn -= ordered[:, None]
    gaps = ordered[:, None] - ordered
    errors = np.maximum(_errors(sums[by_mean], sizes), np.abs(gaps) / classes)
    scale = np.divide(1, errors, out=np.zeros_like(errors), where=errors > 0).astype(np.float32)
    gaps *= scale
    significant, limit = _decide(gaps, drawn.astype(np.float32), scale, sizes, level)
    ratio = gaps[0, 1] if models > 1 else 0.0
    needed = classes * ((limit + special.ndtri(POWER)) / ratio) ** 2 if ratio > 0 else math.inf
    needed = needed if needed <= SENSIBLE * classes else math.inf
    return Order(means * unit, significant[np.ix_(place, place)], p_best[place], float(needed))


def _drawn_means(
    sums: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer], resamples: int, seed: int
) -> DoubleArray:
    """Return the models' means in each resample of the classes, [m, resamples]; equal models have equal means."""
    # Products of integers are exact while float32 represents their sums.
    exact = np.float32 if int(max(sums.max(initial=0), sizes.max())) * sizes.size < _EXACT else np.float64
    table = np.concatenate([sums.astype(exact), sizes[None].astype(exact)])
    drawn = [table @ counts.T.astype(exact) for counts in class_counts(len(sizes), resamples, seed)]
    totals = np.concatenate(drawn, axis=1).astype(np.float64)
    return np.asarray(totals[:-1] / totals[-1])


def _errors(sums: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> DoubleArray:
    """Return the jackknife standard error over classes of each difference of two means, [m, m].

    It is 0 for two models that differ in no class, or equally in all.
    """
    models, classes = sums.shape
    queries = sizes.sum()
    means = sums.sum(axis=1) / queries
    products = np.zeros((models, models))
    for first in range(0, classes, _CLASSES):
        part = slice(first, first + _CLASSES)
        # Change of the mean without the class.
        change = (sums[:, part] - means[:, None] * sizes[part]) / (queries - sizes[part])
        products += change @ change.T
    own = np.diag(products)
    variance = own[:, None] + own - 2 * products
    variance[variance <= NO_VARIANCE * (own[:, None] + own)] = 0.0
    return np.asarray(np.sqrt(variance * (classes - 1) / classes))


def _decide(
    ratios: DoubleArray, deviations: FloatArray, scale: FloatArray, sizes: npt.NDArray[np.integer], level: float
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which models, best first, are significantly better than others, bool [m, m], and the critical value.

    ratios [m, m]: differences over their errors · deviations [m, resamples]: resampled means minus the means · scale
    [m, m]: 1 over the errors.
    """
    models = len(ratios)
    undecided = np.triu(np.ones((models, models), dtype=np.bool_), 1)
    forward, backward = _largest(deviations, np.where(undecided, scale, 0))
    significant = np.zeros_like(undecided)
    while True:
        # Pairs below the diagonal have negative ratios, which are never significant.
        limit = critical_value(np.maximum(forward, backward), sizes, level)
        found = undecided & (ratios > limit)
        significant |= found
        undecided &= ~found
        if not found.any() or not (undecided & (ratios > critical_value(backward, sizes, level))).any():
            return significant, limit
        forward, _ = _largest(deviations, np.where(undecided, scale, 0))


def critical_value(largest: FloatArray, sizes: npt.NDArray[np.integer], level: float) -> float:
    """Return the critical value: the quantile of the largest ratio, at least that of a single pair, as Student's t.

    The standard deviation of resampled means is smaller by the root of (C - 1) / C, and classes of unequal size have
    fewer degrees of freedom (Kish's effective sample size; Survey Sampling, 1965).
    """
    classes = len(sizes)
    effective = float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())
    z = float(np.quantile(largest, level, method="higher")) * math.sqrt(classes / (classes - 1))
    tail = special.ndtr(-max(z, float(special.ndtri((1 + level) / 2))))
    return -float(special.stdtrit(effective - 1, tail))


def _largest(deviations: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the largest (d_i - d_j) * scale_ij and the largest (d_j - d_i) * scale_ij of all pairs per resample, [r].

    Pairs of scale 0 are left out; without any pair the value is 0. Two blocks of models are compared only in those
    resamples in which the largest difference between them, times the largest scale, exceeds what was found before.
    """
    models, resamples = deviations.shape
    starts = np.arange(0, models, _BLOCK)
    lowest, highest = (end.reduceat(deviations, starts) for end in (np.minimum, np.maximum))
    steepest = np.maximum.reduceat(np.maximum.reduceat(scale, starts, axis=1), starts)
    forward, backward = np.zeros((2, resamples), dtype=np.float32)
    for block, start in enumerate(starts):
        others = np.flatnonzero(steepest[block])
        steep = steepest[block, others, None]
        promising = (highest[block] - lowest[others]) * steep > forward
        promising |= (highest[others] - lowest[block]) * steep > backward
        rows = slice(start, start + _BLOCK)
        for other, chosen in zip(starts[others], promising, strict=True):
            drawn = np.flatnonzero(chosen)
            if not drawn.size:
                continue
            columns = slice(other, other + _BLOCK)
            ratios = deviations[rows, drawn][:, None] - deviations[columns, drawn]
            ratios *= scale[rows, columns, None]
            forward[drawn] = np.maximum(forward[drawn], ratios.max(axis=(0, 1)))
            backward[drawn] = np.maximum(backward[drawn], -ratios.min(axis=(0, 1)))
    return forward, backward
