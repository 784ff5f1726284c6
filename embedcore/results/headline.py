"""The headline scores of a run, by which it is ranked, shown and judged: accuracy, or agreement of views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from embedcore.errors import UsageError, option


class Headline(NamedTuple):
    """Names of two scores: by the nearest reference, and by the nearest five."""

    first: str
    five: str


LABELLED = Headline("acc", "acc5")
UNLABELLED = Headline("view_recall", "view_recall5")
"""Share of the images that a view of them finds first, or among its five nearest."""


def headline_scores(dataset: Mapping[str, Any]) -> Headline:
    """Return the headline scores of runs on a dataset (its block in the saved JSON)."""
    return UNLABELLED if dataset.get("unlabelled") is True else LABELLED


def headline_of(scores: Iterable[str]) -> Headline:
    """Return the headline scores of the runs that have these scores."""
    return UNLABELLED if any(score in UNLABELLED for score in scores) else LABELLED


def expect_labels(datasets: Iterable[Mapping[str, Any]], where: object, what: str) -> None:
    """Raise UsageError if a dataset of a run has no labels; `where`: the run's file, `what`: what needs labels."""
    if any(headline_scores(dataset) == UNLABELLED for dataset in datasets):
        raise UsageError(f"{where}: measured with {option('unlabelled', True)}, and {what} needs labels")
