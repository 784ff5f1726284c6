"""Searches among the labelled images of a run, and the paired test of what another search changes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcore.compare.labelled_embeddings import ImageLabels, Unavailable
from embedcore.compare.scores import step_intervals, step_test
from embedcore.compare.statistics import Flips, false_discovery
from embedcore.errors import UsageError
from embedcore.images.ceilings import reference_counts
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.retrieval.metrics import score_across

METRICS = ("acc", "acc5", "map_at_r")

LOSS = 0.01
"""A form of embeddings is recommended if its interval excludes a larger loss of acc."""

_SAME = 1e-6  # tolerance between a saved acc and that of the kept embeddings

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def matching(run: Run, patterns: Sequence[str]) -> Run:
    """Return a run reduced to the models that match one of `patterns`, names or globs; all if there are none.

    Raises UsageError if a pattern matches no model.
    """
    names = [result.model for result in run.results]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UsageError(f"--models: no measured model of {run.path} matches {pattern!r}{hint}")
    wanted = {name for pattern in patterns or ("*",) for name in fnmatch.filter(names, pattern)}
    return replace(run, results=tuple(result for result in run.results if result.model in wanted))


def check_acc(acc: float, result: Result) -> None:
    """Raise Unavailable if the acc of kept embeddings is not that of the result."""
    if abs(acc - result.scores["acc"]) > _SAME:
        raise Unavailable(f"its kept embeddings give acc {acc:.4f}, not {result.scores['acc']:.4f}")


class Search(NamedTuple):
    """Queries that have a reference of their class, and all references."""

    queries: Floats
    """[n, d]"""
    labels: Integers
    """[n]"""
    references: Floats
    """[m, d]"""
    reference_labels: Integers
    """[m]"""
    itself: Integers | None
    """[n], the reference that each query must not find, for leave-one-out."""


class LabelledRetrieval:
    """The scored queries of labelled images, and their references."""

    def __init__(self, images: ImageLabels) -> None:
        self.images = images
        self.labels = images.labels[images.is_query]
        self.reference_labels = images.labels[images.is_reference]
        self._others = None if images.leave_one_out else self.reference_labels
        self.scored = np.flatnonzero(reference_counts(self.labels, self._others) > 0)
        self.class_of = np.unique(self.labels[self.scored], return_inverse=True)[1].reshape(-1)

    def sides(self, rows: Floats) -> tuple[Floats, Floats]:
        if self.images.leave_one_out:
            return rows, rows
        return rows[self.images.is_query], rows[self.images.is_reference]

    def scores(self, sides: tuple[Floats, Floats]) -> NDArray[np.float64]:
        """Return the `METRICS` of each scored query, [m, n_scored]."""
        values = score_across(sides[0], self.labels, sides[1], self._others)
        return np.stack([values[metric] for metric in METRICS])

    def search(self, rows: Floats, chosen: NDArray[np.bool_] | None = None) -> Search:
        """Return the search of the scored queries, or of the `chosen` [n_scored] of them, in embeddings `rows`."""
        queries, references = self.sides(rows)
        some = self.scored if chosen is None else self.scored[chosen]
        itself = some if self.images.leave_one_out else None
        return Search(queries[some], self.labels[some], references, self.reference_labels, itself)


class ScoreChange(NamedTuple):
    """Mean change of a score (positive: better), its 95 % interval, and an exact two-sided p-value."""

    change: float
    low: float
    high: float
    p: float


class Tested(NamedTuple):
    """A mean change with its interval, and its test, not corrected yet."""

    interval: tuple[float, float, float]
    flips: Flips


def tested(before: NDArray[Any], after: NDArray[Any], class_of: NDArray[np.int64]) -> Tested:
    """Test the change of queries [n] that are right or wrong, paired and clustered by class, as `compare` does."""
    step = after.astype(np.int64) - before.astype(np.int64)
    which = np.unique(class_of, return_inverse=True)[1].reshape(-1)
    classes = int(which.max()) + 1
    change, low, high = (float(side[0]) for side in step_intervals(step[None].astype(np.float64), which, classes))
    return Tested((change, low, high), step_test(step, which, classes))


def corrected(tests: Sequence[Tested]) -> list[ScoreChange]:
    """Return the changes with p corrected for all of these tests."""
    p = false_discovery([test.flips.p for test in tests], [test.flips.least for test in tests]).tolist()
    return [ScoreChange(*test.interval, value) for test, value in zip(tests, p, strict=True)]
