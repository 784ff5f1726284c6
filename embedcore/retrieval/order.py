"""How sure an order of models is: which is surely better than which, over all pairs of models at once.

Two models whose scores differ by less than chance share a place. What is sure of a rank follows from the pairs: a
model is no better than one place behind all that are surely better than it, and no worse than before all that it is
surely better than. Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies 91 (2024),
with a covariance clustered by class: queries of a class are not independent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from embedcore.retrieval.resampling import class_counts
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray

LEVEL = 0.95
POWER = 0.8

_EXACT = 2**24  # whole numbers up to it are float32
_CLASSES = 1024  # whose sums are held in float64 at once
_PAIRS = 64  # models that one is compared with at once, in all resamples: fits into a core's cache
# Less variance than this share is rounding: the two models are right on the same queries.
_NO_VARIANCE = 1e-9


@dataclass(frozen=True)
class Order:
    """An order of m models by a score.

    means: float64 [m], the scores · better: bool [m, m], whether model i is surely better than model j; the chance that
    any of them is wrong is at most 1 - level · p_best: float64 [m], the share of resamples in which a model is the
    best; models that are equal there share it · classes_needed: with how many classes such as these the two best
    would be told apart with a chance of 80 %, infinite if they are equal or there is one class.
    """

    means: DoubleArray
    better: npt.NDArray[np.bool_]
    p_best: DoubleArray
    classes_needed: float

    def ranks(self, members: Sequence[int] | None = None) -> IntArray:
        """Rank, best and worst rank that are possible, int64 [k, 3], of some models among themselves (None: of all).

        Equal scores share the better rank. The intervals hold all at once, also those of several groups of models.
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
    """The order of models by their mean over queries, with what is sure of it when classes are resampled.

    All models are resampled together. Each ordered pair (i, j) is tested for i being no better than j: the difference
    of the means over its error, the jackknife's over classes, which holds with classes of unequal size (Cameron and
    Miller, Journal of Human Resources 50, 2015). What a pair has to exceed is the quantile, over resamples, of the
    largest such ratio of all pairs, in terms of Student's t for as many classes; step by step it is taken of
    those pairs only that are not decided yet. No error is less than if all classes differed alike and one class more
    did not, so that up to three classes decide nothing.

    The two best, which differ by d with an error e over C classes, need C * ((limit + 0.84) * e / d)^2 classes: e falls
    as the root of their number, limit is what a pair has to exceed here, and .84 is for the chance of 80 %.

    Needs 4 bytes for each class and model, and 60 for each pair of models: with what is given 270 MB for 1,826 models
    and 8,326 classes.

    Args:
        sums: [m, C], of each model the sum of its score over the queries of each class.
        sizes: [C], how many queries each class has, at least one.
        unit: the score that a sum of 1 stands for.
        level: the chance that no pair of models is put in the wrong order.
        resamples: how many to draw.
        seed: of the draws.

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
    surely, limit = _decide(gaps, drawn.astype(np.float32), scale, sizes, level)
    ratio = gaps[0, 1] if models > 1 else 0.0
    needed = classes * ((limit + special.ndtri(POWER)) / ratio) ** 2 if ratio > 0 else math.inf
    return Order(means * unit, surely[np.ix_(place, place)], p_best[place], float(needed))


def _drawn_means(
    sums: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer], resamples: int, seed: int
) -> DoubleArray:
    """The models' means in each resample of the classes, [m, resamples]; equal models have equal ones."""
    # Products of whole numbers are exact as long as float32 holds their sums.
    exact = np.float32 if int(max(sums.max(initial=0), sizes.max())) * sizes.size < _EXACT else np.float64
    table = np.concatenate([sums.astype(exact), sizes[None].astype(exact)])
    drawn = [table @ counts.T.astype(exact) for counts in class_counts(len(sizes), resamples, seed)]
    totals = np.concatenate(drawn, axis=1).astype(np.float64)
    return np.asarray(totals[:-1] / totals[-1])


def _errors(sums: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> DoubleArray:
    """Standard error of the difference of each two models' means, [m, m], by leaving out one class at a time; 0 where
    the two differ in no class, or in all of them alike."""
    models, classes = sums.shape
    queries = sizes.sum()
    means = sums.sum(axis=1) / queries
    products = np.zeros((models, models))
    for first in range(0, classes, _CLASSES):
        part = slice(first, first + _CLASSES)
        # How much a mean changes without the class.
        change = (sums[:, part] - means[:, None] * sizes[part]) / (queries - sizes[part])
        products += change @ change.T
    own = np.diag(products)
    variance = own[:, None] + own - 2 * products
    variance[variance <= _NO_VARIANCE * (own[:, None] + own)] = 0.0
    return np.asarray(np.sqrt(variance * (classes - 1) / classes))


def _decide(
    ratios: DoubleArray, deviations: FloatArray, scale: FloatArray, sizes: npt.NDArray[np.integer], level: float
) -> tuple[npt.NDArray[np.bool_], float]:
    """Which of the models, best first, is surely better than which, [m, m]; and what a ratio has to exceed for it.

    ratios [m, m]: differences over their errors · deviations [m, resamples]: resampled means less the means · scale
    [m, m]: 1 over the errors.
    """
    models = len(ratios)
    open_ = np.triu(np.ones((models, models), dtype=np.bool_), 1)
    forward, backward = _largest(deviations, np.where(open_, scale, 0))
    surely = np.zeros_like(open_)
    while True:
        # A pair in the wrong order is never decided.
        limit = _limit(np.maximum(forward, backward), sizes, level)
        found = open_ & (ratios > limit)
        surely |= found
        open_ &= ~found
        if not found.any() or not (open_ & (ratios > _limit(backward, sizes, level))).any():
            return surely, limit
        forward, _ = _largest(deviations, np.where(open_, scale, 0))


def _limit(largest: FloatArray, sizes: npt.NDArray[np.integer], level: float) -> float:
    """The quantile of the largest ratio, but no less than one pair alone would have to exceed, as Student's t that is
    exceeded as seldom as a normal one exceeds it.

    Resampled means scatter less than means of as many classes, by the root of (C - 1) / C; and classes of unequal size
    tell as much of an error as fewer equal ones (Kish, Survey Sampling, 1965).
    """
    classes = len(sizes)
    effective = float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())
    z = float(np.quantile(largest, level, method="higher")) * math.sqrt(classes / (classes - 1))
    tail = special.ndtr(-max(z, float(special.ndtri((1 + level) / 2))))
    return -float(special.stdtrit(effective - 1, tail))


def _largest(deviations: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """In each resample the largest (d_i - d_j) * scale_ij of all pairs, and the largest (d_j - d_i) * scale_ij; [r].

    A pair of scale 0 is none; no pair gives 0.
    """
    models, resamples = deviations.shape
    last = np.where(scale.any(axis=1), models - np.argmax(scale[:, ::-1] > 0, axis=1), 0)  # behind a row's last pair

    def of(rows: range) -> tuple[FloatArray, FloatArray]:
        forward, backward = np.zeros((2, resamples), dtype=np.float32)
        room = np.empty((_PAIRS, resamples), dtype=np.float32)
        for i in rows:
            for start, stop in _spans(i + 1, int(last[i])):
                ratios = np.subtract(deviations[i], deviations[start:stop], out=room[: stop - start])
                ratios *= scale[i, start:stop, None]
                np.maximum(forward, ratios.max(axis=0), out=forward)
                np.maximum(backward, -ratios.min(axis=0), out=backward)
        return forward, backward

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        forwards, backwards = zip(*pool.map(of, [range(first, models, cores) for first in range(cores)]), strict=True)
    return np.max(forwards, axis=0), np.max(backwards, axis=0)


def _spans(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, _PAIRS):
        yield first, min(first + _PAIRS, stop)
