"""Certainty of a run's ranks, computed from its verdicts, and agreement of rankings on several datasets.

Heavy libraries are imported when they are used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedcore.errors import UsageError, option
from embedcore.results.headline import LABELLED, UNLABELLED, headline_scores
from embedcore.results.result import Count, Result
from embedcore.results.verdicts import NEAREST, Verdicts, unpack_classes, unpack_outcomes, unpack_verdicts
from embedcore.retrieval.outcomes import PROBES, Outcomes

if TYPE_CHECKING:
    from embedcore.retrieval.order import Order

RANKED = (*LABELLED, "hit5", *PROBES, *UNLABELLED)
"""The scores for which a result can have the outcome of each query."""

_SAME = 1e-6  # tolerance between saved scores and their verdicts


class NotRanked(UsageError):
    """The certainty of the ranks cannot be computed; the message says why."""


class ModelRank(msgspec.Struct, frozen=True):
    """A model's rank by a metric, and how certain it is."""

    model: str
    rank: Count
    """Rank by the metric; equal models share the better rank."""
    rank95: tuple[Count, Count]
    """Best and worst possible rank; simultaneous 95 % intervals of all models."""
    p_best: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Share of the bootstrap samples of the classes in which no model is better; ties share it."""
    tied_with_leader: bool
    """Tied for first: no model is significantly better, and another one is not significantly worse."""


@dataclass(frozen=True)
class Ranking:
    """Models on one dataset in the order of a score, with its certainty."""

    metric: str
    models: tuple[str, ...]
    order: Order
    classes: int
    """Number of classes with a reference, and so with a score."""

    def model_ranks(self, models: Collection[str] | None = None) -> dict[str, ModelRank]:
        """Return the ranks of some of the models (default: all) among themselves; ``p_best`` is among all."""
        place = {model: index for index, model in enumerate(self.models)}
        members = [place[model] for model in self.models if models is None or model in models]
        ranks = self.order.ranks(members).tolist()
        several = sum(best == 1 for _, best, _ in ranks) > 1
        return {
            self.models[member]: ModelRank(
                self.models[member], rank, (best, worst), float(self.order.p_best[member]), several and best == 1
            )
            for member, (rank, best, worst) in zip(members, ranks, strict=True)
        }


@dataclass(frozen=True)
class Rankings:
    """The rankings by the headline scores and by the probes that all models have, or why there are none."""

    by: Mapping[str, Ranking] = field(default_factory=dict)
    why: str = ""

    @property
    def headline(self) -> Ranking | None:
        """The ranking by acc or, without labels, by view_recall."""
        return self.by.get(LABELLED.first) or self.by.get(UNLABELLED.first)

    def by_probes(self) -> dict[str, dict[str, ModelRank]]:
        """Return model → probe → rank."""
        found: dict[str, dict[str, ModelRank]] = {}
        for metric in PROBES:
            ranking = self.by.get(metric)
            for model, model_rank in ranking.model_ranks().items() if ranking is not None else ():
                found.setdefault(model, {})[metric] = model_rank
        return found


def rank_if_possible(results: Sequence[Result], dataset: Mapping[str, Any]) -> Rankings:
    """Return the rankings of measured `results` on a dataset (its block in the saved JSON), or why there are none."""
    if not results:
        return Rankings()
    try:
        found = rank_models(results, dataset)
    except NotRanked as error:
        return Rankings(why=str(error))
    probes = [metric for metric in PROBES if all(metric in result.probe_verdicts for result in results)]
    with contextlib.suppress(NotRanked):  # such as other draws in some results: acc is ranked all the same
        found |= rank_models(results, dataset, probes) if probes else {}
    return Rankings(found)


def rank_models(
    results: Sequence[Result],
    dataset: Mapping[str, Any],
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
) -> dict[str, Ranking]:
    """Return the ranking of measured `results` by each metric.

    `metrics`: of `RANKED`; default: the headline scores. `level`: simultaneous confidence level of a metric's
    intervals. Queries whose class has no reference are left out, as in the scores. Raises NotRanked if verdicts or
    classes are missing or do not match the scores.
    """
    from embedcore.retrieval.order import order

    which, scored = scored_classes(dataset)
    metrics = metrics or headline_scores(dataset)
    sums: dict[str, _Sums] = {}
    for row, result in enumerate(results):
        for metric, outcomes in outcomes_on(result, metrics, len(scored)).items():
            if metric not in sums:
                sums[metric] = _Sums(metric, len(results), outcomes, which, scored)
            sums[metric].add(row, result, outcomes)
    models = tuple(result.model for result in results)
    return {
        metric: Ranking(
            metric, models, order(each.table, each.sizes, unit=1 / each.tries, level=level), len(each.sizes)
        )
        for metric, each in sums.items()
    }


class _Sums:
    """``table`` [models, C]: right answers of models to the queries of each class, by one score; ``sizes`` [C]."""

    def __init__(
        self,
        metric: str,
        models: int,
        first: Outcomes,
        which: NDArray[np.int64],
        scored: NDArray[np.bool_],
    ) -> None:
        """``first``: the outcomes of the first model, on the same queries as those of the others."""
        self.metric, self.tries, self.judged, self.which = metric, first.tries, scored, which
        if first.judged is not None:
            self.judged = scored & first.judged
            self.which = renumbered(which[first.judged[scored]])
        self.sizes = np.bincount(self.which)
        self.table = np.zeros((models, len(self.sizes)), dtype=np.uint32)

    def add(self, row: int, result: Result, outcomes: Outcomes) -> None:
        """Add a model's outcomes. Raises NotRanked if they do not match its score or the first model's."""
        alike = outcomes.judged is None or np.array_equal(outcomes.judged, self.judged)
        if outcomes.tries != self.tries or not alike:
            raise NotRanked(f"{result.model}: its {self.metric} has other queries or draws than that of other models")
        self.table[row] = np.bincount(self.which, weights=outcomes.right[self.judged], minlength=len(self.sizes))
        value = int(self.table[row].sum()) / self.tries / len(self.which)
        if abs(value - result.scores.get(self.metric, math.nan)) > _SAME:
            raise NotRanked(f"{result.model}: its verdicts do not match its {self.metric}")


def renumbered(classes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return classes [n] numbered from 0 without gaps."""
    numbers: NDArray[np.int64] = np.unique(classes, return_inverse=True)[1].astype(np.int64)
    return numbers


def outcomes_on(result: Result, metrics: Iterable[str], queries: int) -> dict[str, Outcomes]:
    """Return the outcomes of a result by each of `metrics`, which are in `RANKED`, on all `queries`.

    Raises NotRanked if they are missing or damaged.
    """
    found: dict[str, Outcomes] = {}
    verdicts: Verdicts | None = None
    for metric in metrics:
        if metric in PROBES:
            found[metric] = _outcomes_of_probe(result, metric, queries)
            continue
        if (metric in UNLABELLED) != (result.headline == UNLABELLED):
            raise NotRanked(f"{result.model} has no {metric}: its headline score is {result.headline.first}")
        verdicts = verdicts or verdicts_on(result, queries)
        match metric:
            case LABELLED.first | UNLABELLED.first:
                found[metric] = Outcomes(verdicts.first, 1)
            case LABELLED.five:
                found[metric] = Outcomes(verdicts.hits, NEAREST)
            case "hit5" | UNLABELLED.five:
                found[metric] = Outcomes(verdicts.hits > 0, 1)
    return found


def _outcomes_of_probe(result: Result, metric: str, queries: int) -> Outcomes:
    text = result.probe_verdicts.get(metric)
    if text is None:
        raise NotRanked(f"{result.model} has no {metric}: {option('probe', True)} measures it if the images allow it")
    try:
        outcomes = unpack_outcomes(text)
    except ValueError as error:
        raise NotRanked(f"{result.model}: {error}") from error
    found = len(outcomes.right)
    if found != queries:
        raise NotRanked(f"{result.model} has {metric} of {found} queries, and the dataset has {queries}")
    return outcomes


def query_classes(dataset: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the class of each query, and whether it has a reference of its class. Raises NotRanked."""
    text = dataset.get("query_classes")
    if not isinstance(text, str):
        raise NotRanked("the classes of the queries are not saved")
    try:
        classes = unpack_classes(text).astype(np.int64)
    except ValueError as error:
        raise NotRanked(str(error)) from error
    lone = dataset.get("lone_classes")
    numbers = [number for number in lone if isinstance(number, int)] if isinstance(lone, list | tuple) else []
    scored = ~np.isin(classes, numbers)
    if not scored.any():
        raise NotRanked("no query has a reference of its class")
    return classes, scored


def scored_classes(dataset: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the class of each scored query, numbered from 0, and the mask of scored queries. Raises NotRanked."""
    classes, scored = query_classes(dataset)
    if np.count_nonzero(~scored) != (dataset.get("lone_queries") or 0):
        raise NotRanked("the queries without a reference of their class are not saved")
    return renumbered(classes[scored]), scored


def verdicts_on(result: Result, queries: int) -> Verdicts:
    """Return the verdicts of a result on all `queries`. Raises NotRanked if they are missing or damaged."""
    if not result.verdicts:
        raise NotRanked(f"{result.model} has no verdicts")
    try:
        verdicts = unpack_verdicts(result.verdicts)
    except ValueError as error:
        raise NotRanked(f"{result.model}: {error}") from error
    found = len(verdicts.hits)
    if found != queries:
        raise NotRanked(f"{result.model} has verdicts on {found} queries, and the dataset has {queries}")
    return verdicts


def ranking_block(rankings: Mapping[str, Rankings]) -> list[dict[str, Any]]:
    """Return ``ranking`` of the ``embedcore`` block, best first; `rankings`: of each dataset, by fingerprint.

    If there are several datasets, each entry names its own.
    """
    block: list[dict[str, Any]] = []
    for fingerprint, found in rankings.items():
        by_probes = found.by_probes()
        models = found.headline.model_ranks().values() if found.headline is not None else ()
        for model_rank in sorted(models, key=lambda each: (each.rank, each.model)):
            entry = msgspec.to_builtins(model_rank) | ({"dataset": fingerprint} if len(rankings) > 1 else {})
            if model_rank.model in by_probes:
                of_model = msgspec.to_builtins(by_probes[model_rank.model])
                entry["probes"] = {
                    metric: {name: value for name, value in of_metric.items() if name != "model"}
                    for metric, of_metric in of_model.items()
                }
            block.append(entry)
    return block


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return Kendall's tau-b of two scores of n models: 1 is the same order, -1 the reverse.

    None for fewer than two models, and if all are equal in one score. Equals scipy's, whose import would take longer
    than the [n, n] comparisons.
    """
    signs = [np.sign(scores[:, None] - scores) for scores in (np.asarray(first), np.asarray(second))]
    pairs = np.count_nonzero(signs[0]) * np.count_nonzero(signs[1])
    return float((signs[0] * signs[1]).sum() / np.sqrt(pairs)) if pairs else None


class MeanRank(NamedTuple):
    """A model's mean rank over datasets."""

    model: str
    mean: float
    interval: tuple[float, float]
    ranks: tuple[int, ...]
    """On each dataset, among the models common to all."""


@dataclass(frozen=True)
class Agreement:
    """Agreement between the rankings of the same models on several datasets."""

    taus: Mapping[tuple[int, int], float | None]
    """Kendall's tau-b of the scores on two datasets, by their indices; None if all models are equal on one."""
    means: tuple[MeanRank, ...]
    """Best first; empty if no model is common to all datasets."""


def agree(datasets: Sequence[tuple[Mapping[str, Any], Sequence[Result]]], metric: str = "acc") -> Agreement:
    """Return the agreement of at least two datasets (block, results) on the models common to all.

    The intervals of the mean ranks are simultaneous at 95 %: those of the ranks have level 1 - .05 / D on each of D
    datasets (Bonferroni), and their ends are averaged. They account for other classes of the same kind, not for other
    datasets. Raises NotRanked.
    """
    common = set.intersection(*({result.model for result in results} for _, results in datasets))
    if not common:
        return Agreement({}, ())
    level = 1 - 0.05 / len(datasets)
    rankings = []
    for dataset, results in datasets:
        shared = sorted((result for result in results if result.model in common), key=lambda result: result.model)
        rankings.append(rank_models(shared, dataset, (metric,), level)[metric])
    taus = {}
    for first, second in combinations(range(len(rankings)), 2):
        taus[first, second] = kendall_tau(rankings[first].order.means, rankings[second].order.means)
    model_ranks = [ranking.model_ranks() for ranking in rankings]
    means = []
    for model in sorted(common):
        of_model = [each[model] for each in model_ranks]
        low, high = (sum(s.rank95[end] for s in of_model) / len(of_model) for end in (0, 1))
        ranks = tuple(s.rank for s in of_model)
        means.append(MeanRank(model, sum(ranks) / len(ranks), (low, high), ranks))
    return Agreement(taus, tuple(sorted(means, key=lambda mean: (mean.mean, mean.model))))
