"""Differences between models over several image sets, with random effects between the sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from embedcore.compare.scores import FEWEST_CLASSES
from embedcore.compare.statistics import LEVEL, Doubles, errors_by_class, false_discovery
from embedcore.errors import UsageError
from embedcore.results.ranking import NotRanked, scored_classes, verdicts_on
from embedcore.results.result import Result

FEWEST_SETS = 2
FEWEST_FOR_NEW = 3
"""Fewer sets have no degree of freedom left for the interval of a new one."""

_GRID, _ZOOMS = 65, 6  # each zoom narrows the range of the maximum by 32
_TAUS = 200  # in the grid of a predictive distribution
_REACH, _HALVINGS = 1e4, 40  # of the bisection for its quantiles, in units of its scale
_SAME = 1e-6  # tolerance between a saved acc and its verdicts


@dataclass(frozen=True)
class Pooled:
    """The mean of a difference over image sets that are a random sample of such sets."""

    mean: float
    low: float
    """95 % interval of the mean."""
    high: float
    p: float
    """Two-sided, that the mean is 0."""
    tau: float
    """Standard deviation of the true differences between sets."""
    new: tuple[float, float] | None = None
    """95 % prediction interval of the true difference on a new set; None for fewer than `FEWEST_FOR_NEW` sets."""
    better: float | None = None
    """Probability that the true difference on a new set is above 0."""


def pooled(differences: Doubles, errors: Doubles) -> Pooled:
    """Return the mean of differences over sets, by a random-effects model.

    The true difference of a set is normal with mean mu and variance tau^2, and the measured one has the standard error
    of that set besides. tau^2 is estimated by restricted maximum likelihood. The interval of mu is that of Hartung and
    Knapp (Statistics in Medicine 20, 2001): Student's t with k - 1 degrees of freedom and a standard error from the
    weighted residuals, never below that of the weights (Roever, Knapp and Friede, BMC Medical Research Methodology 15,
    2015), since with few sets the residuals may be small by chance. The interval of a new set is from `Prediction`.

    Args:
        differences: [k], two or more sets.
        errors: [k], their standard errors, positive.

    >>> found = pooled(np.array([0.01, 0.02, 0.015]), np.array([0.01, 0.01, 0.01]))
    >>> round(found.mean, 6), found.tau, [round(end, 4) for end in (found.low, found.high)]
    (0.015, 0.0, [-0.0098, 0.0398])
    """
    sets, variances = len(differences), errors**2
    between = between_variance(differences, variances)
    weights = 1 / (variances + between)
    mean = float(weights @ differences / weights.sum())
    dispersion = float(weights @ (differences - mean) ** 2) / (sets - 1)
    error = math.sqrt(max(1.0, dispersion) / weights.sum())
    half = float(special.stdtrit(sets - 1, (1 + LEVEL) / 2)) * error
    p = 2 * float(special.stdtr(sets - 1, -abs(mean) / error))
    found = Pooled(mean, mean - half, mean + half, p, math.sqrt(between))
    if sets < FEWEST_FOR_NEW:
        return found
    new = Prediction(differences, variances)
    low, high = (new.quantile(share) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return replace(found, new=(low, high), better=1 - new.below(0.0))


class Prediction:
    """The distribution of the true difference on a new set, given those measured on three or more.

    It averages over tau instead of relying on an estimate, which is often 0 with few sets: the predictive distribution
    of Higgins, Thompson and Spiegelhalter (JRSS A 172, 2009), here with flat priors of mu and tau (Roever, Journal of
    Statistical Software 93, 2020). Given tau it is normal; each tau weighs by its restricted likelihood. With sets much
    farther apart than their errors it is Student's t with k - 2 degrees of freedom, like their approximate interval.
    """

    def __init__(self, differences: Doubles, variances: Doubles) -> None:
        # tau = scale * u / (1 - u) for u from 0 to 1, so that its long tail is within the grid.
        share = (np.arange(_TAUS) + 0.5) / _TAUS
        self._scale = math.sqrt(float(np.var(differences) + variances.mean()))
        between = (self._scale * share / (1 - share)) ** 2
        fit = _fit(differences, variances, between)
        likelihood = np.exp((fit.deviances.min() - fit.deviances) / 2) / (1 - share) ** 2
        self._shares = likelihood / likelihood.sum()
        self._means = fit.means
        self._deviations = np.sqrt(between + fit.variances)

    def below(self, difference: float) -> float:
        """Return the probability that the difference on a new set is below this one."""
        return float(self._shares @ special.ndtr((difference - self._means) / self._deviations))

    def quantile(self, share: float) -> float:
        """Return the difference below which it is with this probability, by bisection."""
        middle, reach = float(self._shares @ self._means), _REACH * self._scale
        low, high = middle - reach, middle + reach
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.below(middle) < share else (low, middle)
        return middle


class _Fit(NamedTuple):
    """For each variance between sets [g]: the weighted mean, its variance, and minus twice the log of the restricted
    likelihood but for a constant."""

    means: Doubles
    variances: Doubles
    deviances: Doubles


def _fit(differences: Doubles, variances: Doubles, between: Doubles) -> _Fit:
    weights = 1 / (variances + between[:, None])
    total = weights.sum(axis=1)
    means = weights @ differences / total
    residuals = (weights * (differences - means[:, None]) ** 2).sum(axis=1)
    return _Fit(means, 1 / total, np.log(total) - np.log(weights).sum(axis=1) + residuals)


def between_variance(differences: Doubles, variances: Doubles) -> float:
    """Return the variance of the true differences between sets by restricted maximum likelihood, 0 or above.

    Args:
        differences: [k], two or more sets.
        variances: [k], squared standard errors, positive.
    """
    # The likelihood equation has no root above this.
    low, high = 0.0, 2 * float(np.ptp(differences)) ** 2 + float(variances.max())
    for _ in range(_ZOOMS):
        grid = np.linspace(low, high, _GRID)
        best = int(np.argmin(_fit(differences, variances, grid).deviances))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
    return float(grid[best])


@dataclass(frozen=True)
class PooledModel:
    """A model's differences of acc to the reference model."""

    model: str
    differences: Mapping[int, tuple[float, float]]
    """Set, by its number → difference and standard error; sets on which both models were measured."""
    pooled: Pooled
    """p is corrected for all models."""


@dataclass(frozen=True)
class Pool:
    """Models on several image sets, compared with one of them."""

    sets: tuple[Mapping[str, Any], ...]
    """Their blocks in the saved JSON."""
    reference: str
    accs: tuple[float | None, ...]
    """acc of the reference on each set; None where it was not measured."""
    models: tuple[PooledModel, ...]
    """The others, the largest mean first."""
    left_out: tuple[str, ...]
    """Models on fewer than two sets of the reference."""


def pool(datasets: Sequence[tuple[Mapping[str, Any], Sequence[Result]]], reference: str | None = None) -> Pool:
    """Pool the paired differences of acc to a reference model over datasets (block in the saved JSON, results).

    `reference`: default: the model with the highest mean acc of those on all sets. Raises UsageError for fewer than two
    sets or models, for a reference that is not on two sets, and if verdicts or classes are missing or damaged.
    """
    if len(datasets) < FEWEST_SETS:
        raise UsageError("one image set cannot be pooled: pass runs on two or more, best on five or more")
    reference = reference or _leader(datasets)
    found: dict[str, dict[int, tuple[float, float]]] = {}
    accs: list[float | None] = []
    for number, (block, results) in enumerate(datasets):
        accs.append(next((result.scores["acc"] for result in results if result.model == reference), None))
        for model, difference in _differences(block, results, reference).items():
            found.setdefault(model, {})[number] = difference
    if sum(acc is not None for acc in accs) < FEWEST_SETS:
        raise UsageError(f"the reference {reference} was measured on fewer than two of the {len(datasets)} image sets")
    estimates = {
        model: pooled(*(np.array(column) for column in zip(*of_sets.values(), strict=True)))
        for model, of_sets in found.items()
        if len(of_sets) >= FEWEST_SETS
    }
    if not estimates:
        raise UsageError(f"no other model was measured on two of the image sets of {reference}")
    p = false_discovery([estimate.p for estimate in estimates.values()]).tolist()
    models = [
        PooledModel(model, found[model], replace(estimate, p=value))
        for (model, estimate), value in zip(estimates.items(), p, strict=True)
    ]
    every = {result.model for _, results in datasets for result in results} - {reference}
    return Pool(
        tuple(block for block, _ in datasets),
        reference,
        tuple(accs),
        tuple(sorted(models, key=lambda model: (-model.pooled.mean, model.model))),
        tuple(sorted(every - estimates.keys())),
    )


def _leader(datasets: Sequence[tuple[Mapping[str, Any], Sequence[Result]]]) -> str:
    accs = [{result.model: result.scores["acc"] for result in results} for _, results in datasets]
    common = sorted(set.intersection(*(set(of_set) for of_set in accs)))
    if not common:
        raise UsageError("no model was measured on all image sets: name the one to compare with by --reference")
    return max(common, key=lambda model: sum(of_set[model] for of_set in accs))


def _differences(block: Mapping[str, Any], results: Sequence[Result], reference: str) -> dict[str, tuple[float, float]]:
    """Return each model's difference of acc to the reference on a set, and its standard error; {} without reference.

    The error is clustered by class, or with few classes by query, as in the gate; it is at least that of one query.
    Raises NotRanked, and UsageError for a single class.
    """
    models = {result.model: result for result in results}
    if reference not in models or len(models) < 2:
        return {}
    which, scored = scored_classes(block)
    classes = int(which.max()) + 1
    if classes < 2:
        raise UsageError(f"image set {block.get('name')} has one class: its differences have no error")
    units = np.arange(len(which)) if classes < FEWEST_CLASSES else which
    sizes = np.bincount(units)

    def sums(model: str) -> Doubles:
        right = verdicts_on(models[model], len(scored)).first[scored]
        if abs(right.mean() - models[model].scores["acc"]) > _SAME:
            raise NotRanked(f"{model}: its verdicts do not match its acc")
        return np.bincount(units, right).astype(np.float64)

    base, least = sums(reference), 1 / len(which)
    found = {}
    for model in (name for name in models if name != reference):
        mean, error = errors_by_class((sums(model) - base)[None], sizes)
        found[model] = float(mean[0]), max(float(error[0]), least)
    return found
