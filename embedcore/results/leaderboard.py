"""Leaderboards: results ranked within their family and overall."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedcore.results.headline import LABELLED, UNLABELLED, Headline, headline_scores
from embedcore.results.ranking import ModelRank, Ranking, Rankings
from embedcore.results.result import STATUSES, Result
from embedcore.results.run import Run
from embedcore.zoo.families import FAMILIES

TITLES = {family.slug: family.title for family in FAMILIES}
"""Slug → title of each family, in display order."""
BEST = 30
"""Rows of the first part of a family shown in two parts."""
MOST_ROWS = 40
"""A family with more rows is shown in two parts, as in the study."""
RACED_OUT = "behind the leader on a sample of the classes"
"""The common reason of raced-out models."""


@dataclass(frozen=True)
class Row:
    """One row of a leaderboard. Ties share a rank and the next rank is skipped (1, 2, 2, 4)."""

    rank: int
    result: Result
    model_rank: ModelRank | None = None
    """How certain the rank among these models is; None without verdicts."""


@dataclass(frozen=True)
class Group:
    """One family's leaderboard, by the first headline score."""

    slug: str
    title: str
    rows: tuple[Row, ...]

    @property
    def parts(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """(heading, rows): one part without a heading, or "best 30" and "the rest" for more than 40 rows."""
        if len(self.rows) <= MOST_ROWS:
            return (("", self.rows),)
        return ((f"best {BEST}", self.rows[:BEST]), ("the rest", self.rows[BEST:]))


@dataclass(frozen=True)
class Exclusion:
    """Cases that could not be measured for the same reason."""

    status: str
    reason: str
    """For several models with ``<model>`` in place of their names."""
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Leaderboard:
    """All rankings on one dataset. Every result is in exactly one of `groups` or `excluded`."""

    groups: tuple[Group, ...]
    """One group per family with a measured result, in the requested order."""
    by_acc: tuple[Row, ...]
    """By the first headline score, which is view_recall without labels."""
    by_acc5: tuple[Row, ...]
    """By the second one."""
    excluded: tuple[Exclusion, ...]
    """In the order of `STATUSES`, the most frequent reason of a status first."""
    dataset: Mapping[str, Any]
    """The ``dataset`` block of the saved JSON."""
    rankings: Rankings = field(default_factory=Rankings)
    """How certain the overall ranks are."""

    @property
    def headline(self) -> Headline:
        """The names of the scores by which models are ranked."""
        return headline_scores(self.dataset)

    @property
    def unlabelled(self) -> bool:
        """Whether the images had no labels, so that models are ranked by agreement of views."""
        return self.headline == UNLABELLED

    @property
    def leaders(self) -> tuple[Row, ...]:
        """The best model of each family with its overall rank by acc, best first."""
        first: dict[str, Row] = {}
        for row in self.by_acc:
            first.setdefault(row.result.family, row)
        return tuple(first.values())

    @property
    def ranks(self) -> Mapping[int, tuple[int, int, int]]:
        """Measured result (its ``id()``) → rank by acc, rank by acc5, rank in its family by acc."""
        rankings = (self.by_acc, self.by_acc5, [row for group in self.groups for row in group.rows])
        acc, acc5, family = ({id(row.result): row.rank for row in rows} for rows in rankings)
        return {result: (rank, acc5[result], family[result]) for result, rank in acc.items()}

    @property
    def excluded_results(self) -> tuple[Result, ...]:
        return tuple(result for exclusion in self.excluded for result in exclusion.results)

    @functools.cached_property
    def _by_model(self) -> Mapping[str, Result]:
        measured = (row.result for row in self.by_acc)
        return {result.model: result for result in (*measured, *self.excluded_results)}

    def acc_bound(self, result: Result) -> float | None:
        """Return the largest acc that a raced-out model may have on all classes; 95 % of such limits should hold.

        None for another model, and if the leader that it lost to has not been measured.
        """
        ratio, leader, seen = 1.0, result, 0
        while "at_most" in leader.race and seen <= len(self._by_model):
            ratio, seen = ratio * float(leader.race["at_most"]), seen + 1
            against = self._by_model.get(str(leader.race.get("against")))
            if against is None:
                return None
            leader = against
        return min(1.0, ratio * leader.scores["acc"]) if leader.ok and leader is not result else None


def build(
    results: Iterable[Result],
    *,
    dataset: Mapping[str, Any],
    titles: Mapping[str, str] = {},
    rankings: Rankings | None = None,
) -> Leaderboard:
    """Build the leaderboard of `results`, measured and not.

    `titles`: slug → title of the families in display order, others follow by slug; `rankings`: of all measured results.
    Rows are ordered by one headline score, then by the other, then by name; equal in both means equal rank.
    """
    everything = list(results)
    measured = [result for result in everything if result.ok]
    rankings = rankings or Rankings()
    first, five = headline_scores(dataset)
    by_acc = rank(measured, first, five, rankings.by.get(first))
    members: dict[str, list[Result]] = {}
    for row in by_acc:
        members.setdefault(row.result.family, []).append(row.result)
    groups = tuple(
        Group(slug, titles.get(slug, slug), rank(members[slug], first, five, rankings.by.get(first)))
        for slug in [*titles, *sorted(members.keys() - titles.keys())]
        if slug in members
    )
    excluded = group_excluded(result for result in everything if not result.ok)
    by_acc5 = rank(measured, five, first, rankings.by.get(five))
    return Leaderboard(groups, by_acc, by_acc5, excluded, dataset, rankings)


def rank(results: Iterable[Result], metric: str, then: str, ranking: Ranking | None = None) -> tuple[Row, ...]:
    """Rank `results` by `metric`, then by the metric `then`, highest first; ties as 1, 2, 2, 4.

    `ranking`: the ranking by `metric` of at least these results.
    """

    def key(result: Result) -> tuple[float, float]:
        return -result.scores[metric], -result.scores[then]

    first: dict[tuple[float, float], int] = {}
    ordered = sorted(results, key=lambda result: (*key(result), result.model))
    model_ranks = ranking.model_ranks({result.model for result in ordered}) if ranking else {}
    return tuple(
        Row(first.setdefault(key(result), place), result, model_ranks.get(result.model))
        for place, result in enumerate(ordered, start=1)
    )


def by_headline(results: Iterable[Result]) -> tuple[Row, ...]:
    """Rank the measured of these `results` on one dataset by its headline scores."""
    measured = [result for result in results if result.ok]
    return rank(measured, *(measured[0].headline if measured else LABELLED))


def group_excluded(excluded: Iterable[Result]) -> tuple[Exclusion, ...]:
    """Group results by status and reason; reasons that differ only in the model's name are the same.

    Raced-out models are one group, those with the highest limit of their acc first.
    """
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in excluded:
        reason = RACED_OUT if result.race else general_reason(result)
        grouped.setdefault((result.status, reason), []).append(result)
    for members in grouped.values():
        members.sort(key=lambda result: -float(result.race.get("at_most", 0.0)))
    exclusions = [
        Exclusion(status, members[0].reason if len(members) == 1 else reason, tuple(members))
        for (status, reason), members in grouped.items()
    ]
    statuses: list[str] = list(STATUSES)
    return tuple(sorted(exclusions, key=lambda e: (statuses.index(e.status), -len(e.results), e.reason)))


def general_reason(result: Result) -> str:
    """Return a result's reason with placeholders for the model's name and architecture.

    >>> general_reason(Result.make("vgg11.tv_in1k", family="vgg", status="no-weights", reason="vgg11.tv_in1k: none"))
    '<model>: none'
    """
    reason = result.reason.replace(result.model, "<model>")
    return re.sub(rf"(?<![\w.]){re.escape(result.architecture)}(?![\w.])", "<architecture>", reason)


def boards_of(run: Run, titles: Mapping[str, str] = TITLES) -> list[Leaderboard]:
    """Return the leaderboard of each dataset of a saved run; `titles`: see `build`."""
    rankings = run.rankings()
    boards = []
    for dataset, measured in run.by_dataset():
        fingerprint = str(dataset.get("fingerprint"))
        excluded = [result for result in run.excluded if result.dataset in (None, fingerprint)]
        results = [*measured, *excluded]
        boards.append(build(results, dataset=dataset, titles=titles, rankings=rankings[fingerprint]))
    return boards
