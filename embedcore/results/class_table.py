"""Accuracy of each class, from the verdicts of the queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.plain import one_line
from embedcore.results.ranking import NotRanked, query_classes, verdicts_on
from embedcore.results.result import Result
from embedcore.results.verdicts import NEAREST, Verdicts

FEW = 5
"""acc5 looks at five neighbours: it is below 1 for a class with fewer references."""

MOST = 5
"""Number of best and of worst classes of a model."""


@dataclass(frozen=True)
class ClassTable:
    """Results of m models on the c classes that have a scored query."""

    names: tuple[str, ...]
    queries: NDArray[np.int64]
    """[c]"""
    references: NDArray[np.int64] | None
    """References of each class [c], without the query itself if leave-one-out; None if not saved."""
    models: Mapping[str, int]
    """Row of each model that has verdicts."""
    first: NDArray[np.int64]
    """[m, c], queries whose nearest reference has their class."""
    hits: NDArray[np.int64]
    """[m, c], references of the class among the five nearest of its queries."""

    def acc(self, model: str) -> NDArray[np.float64]:
        """Return [c]."""
        accuracies: NDArray[np.float64] = self.first[self.models[model]] / self.queries
        return accuracies

    def acc5(self, model: str) -> NDArray[np.float64]:
        """Return [c]."""
        shares: NDArray[np.float64] = self.hits[self.models[model]] / (NEAREST * self.queries)
        return shares

    def extremes(self, model: str) -> tuple[list[int], list[int]]:
        """Return the best and the worst classes of a model by acc, then acc5, then number of queries; at most `MOST` of
        each, no class in both."""
        acc, acc5 = self.acc(model), self.acc5(model)
        count = min(MOST, len(acc) // 2)
        return _first((-acc, -acc5, -self.queries), count), _first((acc, acc5, -self.queries), count)

    def few_references_effect(self, model: str) -> tuple[float, float, float, float] | None:
        """Return acc of a model and the mean of all models on classes with fewer than `FEW` references, then both on
        the others. None if the references are unknown or only one kind of class exists."""
        if self.references is None:
            return None
        few = self.references < FEW
        if few.all() or not few.any():
            return None
        parts = []
        for chosen in (few, ~few):
            total = self.queries[chosen].sum()
            of_models = self.first[:, chosen].sum(axis=1) / total
            parts += [float(of_models[self.models[model]]), float(of_models.mean())]
        return parts[0], parts[1], parts[2], parts[3]


def _first(keys: tuple[NDArray[Any], ...], count: int) -> list[int]:
    """Return the ``count`` indices that come first by the first key, then by the next ones, then by index.

    Only what the first key does not rule out is sorted, since sorting all classes of all models takes long.
    """
    if not count:
        return []
    left = np.flatnonzero(keys[0] <= np.partition(keys[0], count - 1)[count - 1])
    order = np.lexsort([key[left] for key in reversed(keys)])
    return [int(index) for index in left[order[:count]]]


def class_table(results: Iterable[Result], dataset: Mapping[str, Any]) -> ClassTable | None:
    """Return the table of the `results` with valid verdicts on this dataset, None if its classes are not saved."""
    try:
        classes, scored = query_classes(dataset)
    except NotRanked:
        return None
    kept, which = np.unique(classes[scored], return_inverse=True)
    models: dict[str, int] = {}
    first, hits = [], []
    for result in results:
        verdicts = verdicts_of(result, len(classes))
        if verdicts is not None:
            models[result.model] = len(models)
            first.append(np.bincount(which, weights=verdicts.first[scored]))
            hits.append(np.bincount(which, weights=verdicts.hits[scored]))
    if not models:
        return None
    return ClassTable(
        names=tuple(_names(dataset, kept.tolist())),
        queries=np.bincount(which),
        references=_references(dataset, kept),
        models=models,
        first=np.array(first).astype(np.int64),
        hits=np.array(hits).astype(np.int64),
    )


def verdicts_of(result: Result, queries: int) -> Verdicts | None:
    """Return the verdicts of a result; None if they are missing, damaged, or of another number of queries."""
    try:
        return verdicts_on(result, queries)
    except NotRanked:
        return None


def _names(dataset: Mapping[str, Any], classes: Iterable[int]) -> list[str]:
    names = dataset.get("class_names")
    known = names if isinstance(names, list | tuple) else []
    return [one_line(str(known[number])) if number < len(known) else f"class {number}" for number in classes]


def _references(dataset: Mapping[str, Any], classes: NDArray[np.int64]) -> NDArray[np.int64] | None:
    counts = dataset.get("class_references")
    if not isinstance(counts, list | tuple) or not all(isinstance(n, int) for n in counts):
        return None
    if classes.max() >= len(counts):
        return None
    return np.array(counts, dtype=np.int64)[classes]
