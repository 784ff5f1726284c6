"""The race: models that cannot be among the best are found on a sample of the classes, so the rest is not measured.

Classes are drawn in a random order, in stages of growing size; all models that are still in the race are measured on
the same classes, queries and references alike. A model is raced out if both of these say that the ``top`` best models
are better than it:

1. **Betting** (`betting.py`), for the sampling of classes. Class t is scored among the first t classes, so that its
   differences between two models do not depend on later draws: as the mean over all galleries of a quarter of them (at
   least 16), which scatters less than being right or wrong among all. Players bet, class by class, that a model is
   behind each of the ``top`` leaders; the leaders are those of the classes drawn before, and the least successful bet
   counts. If the model is among the ``top`` best, one of the leaders is not better than it, and the bet against that
   one does not gain in expectation. This holds for any leaders, so nothing is paid for the number of models: a model is
   out if the wealth has ever reached ``top`` / (1 - level).
2. **A forecast**, for the gallery. In a larger gallery all models are right less often, and models that confuse similar
   classes lose more. The accuracy in galleries of a sixteenth and of a half of the classes so far, continued as a power
   of their number, forecasts the ratio of two accuracies among all classes (`gallery_size.py`). Its lower 95 %
   confidence limit, from the scatter over classes drawn without replacement, must be above 1.

The first is exact as far as the mean difference of two models does not depend on which gallery of a size was drawn, and
not on the size within a race; the second is an approximation. ``benchmarks/harness/race.py`` measures the error rates
of both together. Races with a bound as in 1: Maron and Moore, "Hoeffding Races", NIPS 6 (1993).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.betting import STAKES, log_gains, log_wealth
from embedcore.retrieval.gallery_size import Ahead, classes_ahead, right_among
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray

LEVEL = 0.95

FEWEST = 32
"""Smallest stage: fewer classes race out hardly any model."""
SHARES = (1 / 32, 1 / 4, 1 / 2)
"""Shares of the classes in the first stage, at most in the first one, and at most in the last one."""
_FIRST_LOOK = 8
"""Classes from which the first leaders are chosen, without bets."""
_DOUBLE = 2.0  # the leaders are chosen again when the classes have doubled
_FIRST_GALLERY = 16  # classes


@dataclass(frozen=True)
class Rules:
    """The guarantee of the race, which holds with probability ``level``.

    top: number of best models to keep · margin: largest loss of accuracy (a fraction) for which another model may
    take the place of one of them.
    """

    top: int = 1
    margin: float = 0.0
    level: float = LEVEL


@dataclass(frozen=True)
class Evidence:
    """How often a model is right on the classes drawn so far, float64 [K] each: sums over the queries of each class.

    whole: among all K classes · first, half, sixteenth: expected number in a random gallery of a quarter of the classes
    up to this one (`first_gallery`), of half of the K classes and of a sixteenth of them.
    """

    whole: DoubleArray
    first: DoubleArray
    half: DoubleArray
    sixteenth: DoubleArray


@dataclass(frozen=True)
class RacedOut:
    """Why a model left the race.

    classes: number of classes it was measured on · acc: accuracy there · against, acc_against: the leader that it is
    closest behind, and that one's accuracy there · at_most: upper confidence limit of its accuracy among all classes,
    divided by that of the leader; 95 % of a race's limits should hold. It may exceed 1.
    """

    classes: int
    acc: float
    against: str
    acc_against: float
    at_most: float


def stages(classes: int) -> tuple[int, ...]:
    """Return the numbers of classes at the end of each stage; () for too few classes to race.

    >>> stages(1664), stages(256), stages(100)
    ((52, 104, 208, 416, 832), (32, 64, 128), ())
    """
    share, largest_first, largest = SHARES
    size, sizes = max(FEWEST, math.ceil(classes * share)), []
    if size <= classes * largest_first:
        while size <= classes * largest:
            sizes.append(size)
            size *= 2
    return tuple(sizes)


def first_gallery(drawn: IntArray) -> IntArray:
    """Return the size of the gallery for the bet on the last of ``drawn`` classes: a quarter of them, at least 16.

    >>> first_gallery(np.array([1, 15, 60, 400])).tolist()
    [1, 15, 16, 100]
    """
    return np.minimum(drawn, np.maximum(_FIRST_GALLERY, drawn // 4))


def trend_galleries(classes: int) -> tuple[int, int]:
    """Return the sizes of the two galleries of the forecast: a half and a sixteenth of the classes.

    >>> trend_galleries(52), trend_galleries(16)
    ((26, 3), (8, 2))
    """
    return max(3, classes // 2), max(2, classes // 16)


def evidence_of(
    embeddings: FloatArray,
    labels: IntArray,
    is_query: npt.NDArray[np.bool_],
    is_reference: npt.NDArray[np.bool_],
    classes: int,
    *,
    leave_one_out: bool,
) -> Evidence:
    """Return the evidence of one model from its embeddings of all images of the classes drawn so far.

    Args:
        embeddings: float32 [n, d], rows L2-normalised.
        labels: [n], the place of each image's class in the order drawn, from 0.
        is_query: [n].
        is_reference: [n].
        classes: number of classes drawn.
        leave_one_out: whether each image is a query and a reference for all others.
    """
    of_queries = labels[is_query]
    sides = () if leave_one_out else (embeddings[is_reference], labels[is_reference])
    ahead = classes_ahead(embeddings[is_query], of_queries, *sides)
    return evidence_from(ahead, of_queries, classes)


def evidence_from(ahead: Ahead, labels: IntArray, classes: int) -> Evidence:
    """Return the evidence from the classes ahead of each query; ``labels`` [n]: the place of its class as drawn."""

    def per_class(right: DoubleArray) -> DoubleArray:
        sums: DoubleArray = np.bincount(labels, weights=right, minlength=classes).astype(np.float64)
        return sums

    half, sixteenth = trend_galleries(classes)
    return Evidence(
        whole=per_class((ahead.whole == 0).astype(np.float64)),
        first=per_class(right_among(ahead.before, labels + 1, first_gallery(labels + 1))),
        half=per_class(right_among(ahead.whole, classes, half)),
        sixteenth=per_class(right_among(ahead.whole, classes, sixteenth)),
    )


class Race:
    """A race, judged after each stage."""

    def __init__(self, queries: npt.NDArray[np.integer], rules: Rules) -> None:
        """``queries`` [N]: number of scored queries of each class, in the order drawn; some have one."""
        self.rules = rules
        self._queries = queries.astype(np.float64)
        self._judged = 0
        self._wealth: dict[str, DoubleArray] = {}
        """Log wealth [stakes] of the bets that a model is behind the leaders."""
        self._with_margin: dict[str, DoubleArray] = {}
        """Likewise, of the bets that it is less than the margin ahead of them."""
        self._highest: dict[str, tuple[float, float]] = {}
        """Highest log wealth so far, without and with the margin."""
        self._leaders: set[str] = set()
        """Models that were bet on. Only a better model may replace one of them: others left the race because they are
        at most the margin better."""

    def judge(self, evidence: Mapping[str, Evidence]) -> dict[str, RacedOut]:
        """Return the models that leave the race, from the evidence on those that are in it, on all classes so far."""
        if len(evidence) <= self.rules.top:
            return {}
        models = list(evidence)
        self._bet(models, np.stack([each.first for each in evidence.values()]))
        forecast = _Forecast(list(evidence.values()), self._queries)
        best = np.argsort(-forecast.later, kind="stable")[: self.rules.top + 1]
        self._leaders.update(models[leader] for leader in best[: self.rules.top])
        needed = math.log(self.rules.top / (1 - self.rules.level))
        leaving: dict[int, int] = {}
        for place, model in enumerate(models):
            is_leader = model in self._leaders
            if self._highest[model][0 if is_leader else 1] < needed:
                continue
            leaders = [leader for leader in best.tolist() if leader != place][: self.rules.top]
            ratios = forecast.ratios(place, leaders)
            allowed = 0.0 if is_leader else self.rules.margin
            if all(ratios < 1 + allowed / forecast.later[leaders]):
                leaving[place] = leaders[int(np.argmax(ratios))]
        if not leaving:
            return {}
        out = {}
        # Those that leave are those whose forecast happened to be low, now or in another stage. So that 95 % of their
        # limits hold all the same, the error is shared by all models that were judged (Benjamini and Yekutieli, JASA
        # 100, 2005, 71-81) and by the stages.
        share = len(leaving) / len(models) / max(1, len(stages(len(self._queries))))
        quantile = _t_quantile(1 - (1 - LEVEL) * share, forecast.classes - 1)
        for place, leader in leaving.items():
            model, acc = models[place], forecast.acc
            (at_most,) = forecast.ratios(place, [leader], quantile).tolist()
            out[model] = RacedOut(forecast.classes, float(acc[place]), models[leader], float(acc[leader]), at_most)
            del self._wealth[model], self._with_margin[model], self._highest[model]
        return out

    def _bet(self, models: list[str], first: DoubleArray) -> None:
        """Bet on the classes that were drawn since the last time; `first` [m, K]."""
        count, top = first.shape[1], self.rules.top
        # Of micro-averaged accuracies: a class counts as often as it has queries. The unit is the largest class.
        unit = self._queries.max()
        right, allowance = first / unit, self.rules.margin * self._queries[:count] / unit
        nothing = np.zeros(len(STAKES))
        strict = np.stack([self._wealth.get(model, nothing) for model in models])
        lenient = np.stack([self._with_margin.get(model, nothing) for model in models])
        highest = np.array([self._highest.get(model, (0.0, 0.0)) for model in models])
        for start, stop in _looks(self._judged, count):
            leaders = np.argsort(-right[:, :start].sum(axis=1), kind="stable")[: top + 1]
            self._leaders.update(models[leader] for leader in leaders)
            differences = right[leaders, None, :stop] - right[None, :, :stop]
            for column, (wealth, allowed) in enumerate(((strict, 0.0), (lenient, allowance[:stop]))):
                gains = _least(log_gains(differences + allowed, len(self._queries), start), leaders, top)
                reached = log_wealth(wealth[:, None] + gains).max(axis=1)
                highest[:, column] = np.maximum(highest[:, column], reached)
                wealth += gains[:, -1]
        self._judged = count
        self._wealth = dict(zip(models, strict, strict=True))
        self._with_margin = dict(zip(models, lenient, strict=True))
        self._highest = {model: (a, b) for model, (a, b) in zip(models, highest.tolist(), strict=True)}


def _looks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the classes between two choices of the leaders, as (first, one after the last).

    >>> list(_looks(0, 52)), list(_looks(52, 104))
    ([(8, 16), (16, 32), (32, 52)], [(52, 104)])
    """
    start = max(start, _FIRST_LOOK)
    while start < stop:
        end = min(stop, int(start * _DOUBLE))
        yield start, end
        start = end


def _least(gains: DoubleArray, leaders: npt.NDArray[np.integer], top: int) -> DoubleArray:
    """Return the least gain [m, t, stakes] against the first ``top`` leaders other than the model itself.

    gains: [leaders, m, t, stakes], against each leader.
    """
    gains = gains.copy()
    if len(leaders) > top:
        others = np.ones(gains.shape[1], np.bool_)
        others[leaders] = False
        gains[top, others] = np.inf
    gains[np.arange(len(leaders)), leaders] = np.inf
    return np.asarray(gains.min(axis=0))


class _Forecast:
    """The accuracies of m models among all classes, forecast from K of them.

    classes: K · acc: [m], among the K classes · later: [m], forecast among all.
    """

    def __init__(self, evidence: list[Evidence], queries: DoubleArray) -> None:
        large, small = (np.stack([getattr(each, name) for each in evidence]) for name in ("half", "sixteenth"))
        self.classes, self._population = large.shape[1], len(queries)
        asked = max(1.0, float(queries[: self.classes].sum()))
        self.acc = np.array([each.whole.sum() for each in evidence]) / asked
        half, sixteenth = trend_galleries(self.classes)
        trend = math.log(len(queries) / half) / math.log(half / sixteenth)
        # Half a query more, so that a model that is never right has a logarithm.
        rights, of_small = large.sum(axis=1) + 0.5, small.sum(axis=1) + 0.5
        self._logs = (1 + trend) * np.log(rights) - trend * np.log(of_small)
        self.later = np.exp(self._logs) / asked
        # Change of the logarithm with the weight of each class: the linear term of its expansion (delta method).
        self._influence = (1 + trend) * large / rights[:, None] - trend * small / of_small[:, None]
        # The variance of the half query: without it a model that is never right would have no error.
        self._least = 0.5 * ((1 + trend) / rights) ** 2

    def ratios(self, model: int, leaders: list[int], quantile: float = NormalDist().inv_cdf(LEVEL)) -> DoubleArray:
        """Return an upper confidence limit of the model's accuracy over that of each leader, the 95 % one by default.

        ``quantile``: standard errors between the forecast and the limit.
        """
        apart = self._influence[leaders] - self._influence[model]
        left = 1 - self.classes / self._population  # finite population correction
        least = self._least[leaders] + self._least[model]
        error = np.sqrt(((apart**2).sum(axis=1) * self.classes / (self.classes - 1) + least) * left)
        behind = self._logs[leaders] - self._logs[model]
        ratios: DoubleArray = np.exp(quantile * error - behind)
        return ratios


def _t_quantile(level: float, degrees: int) -> float:
    """Return the quantile of Student's t."""
    from scipy.special import stdtrit  # here, since this module is imported without a race too

    return float(stdtrit(degrees, level))
