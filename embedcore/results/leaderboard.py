"""Leaderboards: results ranked within their family and overall. Pure: no files, no text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedcore.results.ranking import ModelRank, Ranking, Rankings
from embedcore.results.result import STATUSES, Result
from embedcore.results.run import Run

BEST = 30
"""Rows of the first part of a family that is shown in two parts."""
MOST_ROWS = 40
"""A family of more rows than this is shown in two parts, as the study did with its two largest."""


@dataclass(frozen=True)
class Row:
    """One place of a ranking. Results that only their name tells apart share a rank; the next one's counts them all."""

    rank: int
    result: Result
    standing: ModelRank | None = None
    """Among the models of this ranking, by its metric; None where the verdicts do not tell."""


@dataclass(frozen=True)
class Group:
    """One family's leaderboard, by acc."""

    slug: str
    title: str
    rows: tuple[Row, ...]

    @property
    def parts(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """(heading, rows): one part with no heading, or "best 30" and "the rest" if there are more than 40 rows."""
        if len(self.rows) <= MOST_ROWS:
            return (("", self.rows),)
        return ((f"best {BEST}", self.rows[:BEST]), ("the rest", self.rows[BEST:]))


@dataclass(frozen=True)
class Exclusion:
    """Cases that could not be measured for one and the same reason."""

    status: str
    reason: str
    """With the model's name replaced by ``<model>``, where it is in it and there are several models."""
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Leaderboard:
    """All rankings of one run. Every result is in exactly one of `groups` or `excluded`."""

    groups: tuple[Group, ...]
    """A group per family that has a measured result, in the order asked for."""
    by_acc: tuple[Row, ...]
    by_acc5: tuple[Row, ...]
    excluded: tuple[Exclusion, ...]
    """In the order of `STATUSES`, the most frequent reason of a status first."""
    dataset: Mapping[str, Any]
    """The ``dataset`` block of the saved JSON."""
    rankings: Rankings = field(default_factory=Rankings)
    """How sure the overall ranks are."""

    @property
    def leaders(self) -> tuple[Row, ...]:
        """The best of each family with its overall rank by acc, the best one first."""
        first: dict[str, Row] = {}
        for row in self.by_acc:
            first.setdefault(row.result.family, row)
        return tuple(first.values())

    @property
    def ranks(self) -> Mapping[int, tuple[int, int, int]]:
        """Of each measured result, by its ``id()``: rank by acc, rank by acc5, rank in its family by acc."""
        rankings = (self.by_acc, self.by_acc5, [row for group in self.groups for row in group.rows])
        acc, acc5, family = ({id(row.result): row.rank for row in rows} for rows in rankings)
        return {result: (rank, acc5[result], family[result]) for result, rank in acc.items()}

    @property
    def excluded_results(self) -> tuple[Result, ...]:
        return tuple(result for exclusion in self.excluded for result in exclusion.results)


def build(
    results: Iterable[Result],
    *,
    dataset: Mapping[str, Any],
    families: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
    rankings: Rankings | None = None,
) -> Leaderboard:
    """Rank `results`, measured and not.

    Families come in the order of `families` (slugs), those that it lacks after them by name; `titles` maps a slug to
    what is shown for it (the slug itself if missing); `rankings`: of all that were measured. Within a ranking the order
    is: the metric, highest first; then the other of acc and acc5; then the model's name. Equal in both metrics means
    equal rank.
    """
    everything = list(results)
    measured = [result for result in everything if result.ok]
    rankings = rankings or Rankings()
    by_acc = rank(measured, "acc", "acc5", rankings.by.get("acc"))
    members: dict[str, list[Result]] = {}
    for row in by_acc:
        members.setdefault(row.result.family, []).append(row.result)
    place = {slug: index for index, slug in enumerate(families)}
    order = sorted(members, key=lambda slug: (place.get(slug, len(place)), slug))
    groups = tuple(
        Group(slug, (titles or {}).get(slug, slug), rank(members[slug], "acc", "acc5", rankings.by.get("acc")))
        for slug in order
    )
    excluded = group_excluded(result for result in everything if not result.ok)
    by_acc5 = rank(measured, "acc5", "acc", rankings.by.get("acc5"))
    return Leaderboard(groups, by_acc, by_acc5, excluded, dataset, rankings)


def rank(results: Iterable[Result], metric: str, then: str, ranking: Ranking | None = None) -> tuple[Row, ...]:
    """`results` by `metric`, then by the metric `then`, highest first; competition ranking (1, 2, 2, 4). `ranking`:
    that by `metric`, of these and maybe more."""

    def key(result: Result) -> tuple[float, float]:
        return -result.scores[metric], -result.scores[then]

    first: dict[tuple[float, float], int] = {}
    ordered = sorted(results, key=lambda result: (*key(result), result.model))
    standings = ranking.standings({result.model for result in ordered}) if ranking else {}
    return tuple(
        Row(first.setdefault(key(result), place), result, standings.get(result.model))
        for place, result in enumerate(ordered, start=1)
    )


def group_excluded(excluded: Iterable[Result]) -> tuple[Exclusion, ...]:
    """`excluded` grouped by status and reason. Reasons that differ only in the model's own names are one reason."""
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in excluded:
        reason = general_reason(result)
        grouped.setdefault((result.status, reason), []).append(result)
    exclusions = [
        Exclusion(status, members[0].reason if len(members) == 1 else reason, tuple(members))
        for (status, reason), members in grouped.items()
    ]
    statuses: list[str] = list(STATUSES)
    return tuple(sorted(exclusions, key=lambda e: (statuses.index(e.status), -len(e.results), e.reason)))


def general_reason(result: Result) -> str:
    """The reason of a result with the model's name and architecture made general, so that equal ones read equal.

    >>> general_reason(Result.make("vgg11.tv_in1k", family="vgg", status="no-weights", reason="vgg11.tv_in1k: none"))
    '<model>: none'
    """
    reason = result.reason.replace(result.model, "<model>")
    return re.sub(rf"(?<![\w.]){re.escape(result.architecture)}(?![\w.])", "<architecture>", reason)


def boards_of(run: Run, titles: Mapping[str, str]) -> list[Leaderboard]:
    """The leaderboard of each dataset of a saved run, that of the session first; `titles`: of the families, by slug, in
    their order."""
    rankings = run.rankings()
    boards = []
    for dataset, measured in run.by_dataset():
        fingerprint = str(dataset.get("fingerprint"))
        excluded = [result for result in run.excluded if result.dataset in (None, fingerprint)]
        boards.append(
            build(
                [*measured, *excluded],
                dataset=dataset,
                families=list(titles),
                titles=titles,
                rankings=rankings[fingerprint],
            )
        )
    return boards
