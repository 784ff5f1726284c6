"""Shortfall of chosen models from the best one, with simultaneous intervals for all choices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.order import LEVEL, NO_VARIANCE, critical_value
from embedcore.retrieval.resampling import class_counts
from embedcore.retrieval.tiles import DoubleArray, FloatArray

# Models whose deviations in all resamples fit into a core's cache.
_MODELS = 64


class Shortfall(NamedTuple):
    """For each of k choices: best score minus the choice's score, float64 [k], with its interval."""

    value: DoubleArray
    low: DoubleArray
    high: DoubleArray


def shortfalls(
    sums: npt.NDArray[np.integer],
    sizes: npt.NDArray[np.integer],
    choices: DoubleArray,
    among: npt.NDArray[np.bool_],
    *,
    resamples: int = 1000,
) -> Shortfall:
    """Return by how much each choice's mean over queries is below that of the best model it could have been.

    Which model is truly the best is not known, so the interval is not that of the difference to the model that looks
    best. All differences between a model and a choice get simultaneous intervals; the shortfall, their maximum, is then
    between the largest lower end (at least 0) and the largest upper end (Hsu, "Constrained simultaneous confidence
    intervals for multiple comparisons with the best", Annals of Statistics 12, 1984). The critical value is the
    quantile of the largest studentised difference over resamples of the classes (Romano and Wolf, "Exact and
    approximate stepdown methods for multiple hypothesis testing", JASA 100, 2005), converted to Student's t, with
    jackknife errors over classes, as in `embedcore.retrieval.order.order`. The choices are fixed: an interval is about
    the models that were chosen, not about the rule that chose them on other data.

    All intervals contain the true shortfalls with a probability of 95 %. With one class they are (0, 1).

    Args:
        sums: [m, C], each model's number of right queries of each class.
        sizes: [C], number of queries of each class, at least one.
        choices: [k, m], weights of the models that are chosen, each row of sum 1; ties share it.
        among: [k, m], the models that could have been chosen, at least one in each row.
        resamples: number of resamples.

    >>> right = np.array([[9] * 40, [6, 8] * 20])
    >>> found = shortfalls(right, np.full(40, 10), np.array([[0.0, 1.0]]), np.ones((1, 2), dtype=np.bool_))
    >>> [round(float(end[0]), 2) for end in found]
    [0.2, 0.17, 0.23]
    """
    models, classes = sums.shape
    queries = sizes.sum()
    rows = np.concatenate([sums, choices @ sums])
    means = rows.sum(axis=1) / queries
    gaps = means[:models] - means[models:, None]
    value = np.where(among, gaps, -np.inf).max(axis=1)
    if classes < 2:
        return Shortfall(value, np.zeros_like(value), np.ones_like(value))
    residuals = rows - means[:, None] * sizes
    errors = np.maximum(_errors(residuals / (queries - sizes), models), np.abs(gaps) / classes)
    half = critical_value(_largest(residuals, sizes, errors, among, resamples), sizes, LEVEL) * errors
    low, high = (np.where(among, ends, -np.inf).max(axis=1) for ends in (gaps - half, gaps + half))
    return Shortfall(value, np.clip(low, 0, 1), np.clip(high, 0, 1))


def _errors(changes: DoubleArray, models: int) -> DoubleArray:
    """Return the jackknife standard error of each model minus each choice, [k, m].

    changes: [m + k, C], the change of each mean without the class.
    """
    own = np.einsum("mc,mc->m", changes, changes)
    total = own[models:, None] + own[:models]
    variance = total - 2 * changes[models:] @ changes[:models].T
    variance[variance <= NO_VARIANCE * total] = 0.0
    classes = changes.shape[1]
    return np.asarray(np.sqrt(variance * (classes - 1) / classes))


def _largest(
    residuals: DoubleArray,
    sizes: npt.NDArray[np.integer],
    errors: DoubleArray,
    among: npt.NDArray[np.bool_],
    resamples: int,
) -> FloatArray:
    """Return the largest absolute deviation of a difference over its error in each resample, [resamples]."""
    single = residuals.astype(np.float32)
    drawn = [
        single @ counts.T.astype(np.float32) / (sizes @ counts.T).astype(np.float32)
        for counts in class_counts(len(sizes), resamples, seed=0)
    ]
    deviations = np.concatenate(drawn, axis=1)
    models = errors.shape[1]
    scale = np.divide(1, errors, out=np.zeros_like(errors), where=among & (errors > 0)).astype(np.float32)
    largest = np.zeros(resamples, dtype=np.float32)
    for choice, scales in zip(deviations[models:], scale, strict=True):
        for start in range(0, models, _MODELS):
            part = slice(start, min(start + _MODELS, models))
            ratios = np.abs(deviations[part] - choice) * scales[part, None]
            np.maximum(largest, ratios.max(axis=0), out=largest)
    return largest
