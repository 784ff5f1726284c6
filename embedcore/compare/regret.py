"""Regret: the cost of choosing a model by a rule (published accuracy, size, a sample) on the images of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcore.compare.statistics import Doubles
from embedcore.errors import UsageError
from embedcore.results.class_table import ClassTable
from embedcore.results.ranking import kendall_tau
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.retrieval.shortfall import shortfalls

METRICS = ("acc5", "map_at_r", "knn20", "centroid", "probe_ridge", "probe_logistic")
"""Other scores of a run that are rules, if its results have them."""
SIZE, SAMPLE = "size", "sample"
"""Names of the rules that pick the largest model, and the best one of a run on a sample."""

BANDS = (("<10M", 0.0, 10.0), ("10–30", 10.0, 30.0), ("30–100", 30.0, 100.0), (">100M", 100.0, math.inf))
"""Models of similar size: title, least and most millions of parameters. Fixed, so that runs can be compared."""

FEWEST = 2
"""Models that a rule must order."""
_FEWEST_OF_BAND = 3
_MOST_DEPARTURES = 5


@dataclass(frozen=True)
class Rule:
    """A way to choose a model without its acc: the one with the highest value."""

    name: str
    phrase: str
    """What follows "picked by", such as ``published ImageNet top-1``."""
    values: Mapping[str, float]
    """Model → value, for the models that it orders."""
    is_score: bool = False
    """Whether the values are another score of the same run."""


class Band(NamedTuple):
    """Agreement between a rule and acc among models of similar size."""

    title: str
    models: int
    tau: float | None
    """Kendall's tau-b; None for fewer than three models, and if all are equal."""


class Departure(NamedTuple):
    """A model with its rank by a rule and by acc; ties share the better rank."""

    model: str
    value: float
    rank: int
    acc: float
    rank_by_acc: int


@dataclass(frozen=True)
class Regret:
    """The cost of one rule. All ranks and the best model are among the models that it orders."""

    rule: Rule
    models: int
    """Number of models that it orders."""
    picked: tuple[str, ...]
    """The model that it picks; several if they have the same value."""
    acc: float
    """acc of the picked model; the mean if there are several."""
    best: str
    best_acc: float
    points: float
    """best_acc - acc, a fraction."""
    low: float
    high: float
    """Simultaneous 95 % intervals of all rules, see `embedcore.retrieval.shortfall`."""
    tau: float | None
    """Kendall's tau-b of the rule and acc."""
    bands: tuple[Band, ...]
    departures: tuple[Departure, ...]
    """The models whose ranks differ most, the largest difference first."""
    reverse: float | None
    """For another score of the run: how much of it picking by acc costs; it has no interval."""


@dataclass(frozen=True)
class Regrets:
    """The cost of each rule on one dataset."""

    models: int
    """Number of measured models with verdicts."""
    classes: int
    best: str
    best_acc: float
    rules: tuple[Regret, ...]

    def of(self, name: str) -> Regret | None:
        """Return the regret of the rule of that name."""
        return next((regret for regret in self.rules if regret.rule.name == name), None)


def candidates(results: Sequence[Result]) -> list[Result]:
    """Return the results that can be chosen: those with random weights only if there are no others."""
    return [result for result in results if not result.random_weights] or [*results]


def rules_of(
    results: Sequence[Result], published: Mapping[str, Mapping[str, float]], *, phrase: str = "published {} top-1"
) -> tuple[Rule, ...]:
    """Return the rules that order at least two of the results: published accuracies, size, and other scores.

    `published`: test set → model → top-1 accuracy; it does not apply to random weights, or to weights of the user's.
    `phrase`: of the rule of a test set, with its name for {}.
    """
    named = {
        result.model for result in results if not (result.random_weights or result.own or "file" in result.weights)
    }
    rules = [
        Rule(name, phrase.replace("{}", name), {model: top1 for model, top1 in values.items() if model in named})
        for name, values in published.items()
    ]
    sizes = {result.model: result.params_m for result in results if result.params_m is not None}
    rules.append(Rule(SIZE, "size", sizes))
    for metric in METRICS:
        scores = {result.model: result.scores[metric] for result in results if metric in result.scores}
        rules.append(Rule(metric, metric, scores, is_score=True))
    return tuple(rule for rule in rules if len(rule.values) >= FEWEST)


def sample_rule(run: Run, sample: Run) -> Rule:
    """Return the rule that picks by acc in `sample`, a run of the same models on a sample of the images of `run`.

    Raises UsageError if it is not on one dataset, has other classes, or has fewer than two of the models.
    """
    if len(sample.datasets) > 1:
        raise UsageError(f"{sample.path}: --sample is a run on one dataset, and it has {len(sample.datasets)}")
    whole, part = (set(_classes(each)) for each in (run, sample))
    if whole and part - whole:
        raise UsageError(
            f"{sample.path}: not a sample of {run.path}: {run.dataset.get('name')} has no class {min(part - whole)!r}"
        )
    measured = {result.model for result in run.results}
    values = {result.model: result.scores["acc"] for result in sample.results if result.model in measured}
    if len(values) < FEWEST:
        raise UsageError(f"{sample.path}: it has {len(values)} of the models of {run.path}: at least 2 are needed")
    counts = [each.dataset.get("queries") for each in (sample, run)]
    known = all(isinstance(count, int) for count in counts)
    phrase = "a sample of {:,} of {:,} queries".format(*counts) if known else "the sample"
    return Rule(SAMPLE, phrase, values)


def _classes(run: Run) -> Sequence[str]:
    names = run.dataset.get("class_names")
    return [*map(str, names)] if isinstance(names, list | tuple) else []


def regrets(results: Sequence[Result], table: ClassTable, rules: Sequence[Rule]) -> Regrets:
    """Return the regret of each rule that orders at least two of the results with verdicts.

    A rule's regret is the acc of the best model that it orders minus that of the model it picks: what measuring those
    models would have gained. If several have its highest value, it picks one of them at random.

    Args:
        results: the models to choose from.
        table: their right queries by class.
        rules: such as those of `rules_of`.
    """
    models = [result.model for result in results if result.model in table.models]
    params = np.array([math.nan if r.params_m is None else r.params_m for r in results if r.model in table.models])
    sums, sizes = table.first[[table.models[model] for model in models]], table.queries
    acc = sums.sum(axis=1) / sizes.sum()
    values = np.array([[rule.values.get(model, math.nan) for model in models] for rule in rules])
    values = values.reshape(len(rules), len(models))
    orders = (~np.isnan(values)).sum(axis=1) >= FEWEST
    values, kept = values[orders], [rule for rule, order in zip(rules, orders.tolist(), strict=True) if order]
    best = int(acc.argmax())
    if not kept:
        return Regrets(len(models), len(sizes), models[best], float(acc[best]), ())
    among = ~np.isnan(values)
    highest = values == np.nanmax(values, axis=1, keepdims=True)
    short = shortfalls(sums, sizes, highest / highest.sum(axis=1, keepdims=True), among)
    found = []
    for place, rule in enumerate(kept):
        ordered = np.flatnonzero(among[place])
        value, score = values[place, ordered], acc[ordered]
        top = int(score.argmax())
        found.append(
            Regret(
                rule,
                models=len(ordered),
                picked=tuple(models[m] for m in np.flatnonzero(highest[place])),
                acc=float(acc[highest[place]].mean()),
                best=models[ordered[top]],
                best_acc=float(score[top]),
                points=float(short.value[place]),
                low=float(short.low[place]),
                high=float(short.high[place]),
                tau=kendall_tau(value, score),
                bands=tuple(_bands(value, score, params[ordered])),
                departures=_departures([models[m] for m in ordered], value, score),
                reverse=float(value.max() - value[score == score.max()].mean()) if rule.is_score else None,
            )
        )
    return Regrets(len(models), len(sizes), models[best], float(acc[best]), tuple(found))


def _bands(value: Doubles, acc: Doubles, params: Doubles) -> Iterator[Band]:
    for title, least, most in BANDS:
        inside = (params >= least) & (params < most)
        count = int(inside.sum())
        yield Band(title, count, kendall_tau(value[inside], acc[inside]) if count >= _FEWEST_OF_BAND else None)


def _departures(models: Sequence[str], value: Doubles, acc: Doubles) -> tuple[Departure, ...]:
    by_rule, by_acc = ranks(value), ranks(acc)
    moved = np.abs(by_rule - by_acc)
    most = np.argsort(-moved, kind="stable")[:_MOST_DEPARTURES]
    return tuple(
        Departure(models[m], float(value[m]), int(by_rule[m]), float(acc[m]), int(by_acc[m])) for m in most if moved[m]
    )


def ranks(scores: Doubles) -> NDArray[np.int64]:
    """Return the rank of each score, 1 for the highest; ties share the better rank.

    >>> ranks(np.array([0.1, 0.9, 0.5, 0.5])).tolist()
    [4, 1, 2, 2]
    """
    ordered = np.sort(scores)
    better: NDArray[np.int64] = len(scores) - np.searchsorted(ordered, scores, side="right") + 1
    return better
