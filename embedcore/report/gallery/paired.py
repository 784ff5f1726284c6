"""Two models on the same queries: who is right alone, and whether the difference is significant."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 12
"""Maximum number of models that are compared with each other; the best are kept."""


class PairedComparison(NamedTuple):
    """The first model against the second; `first` and `second` are places in the list of models."""

    first: int
    second: int
    first_only: int
    """Queries that only the first model gets right."""
    second_only: int
    difference: float
    """In acc, first - second, with its 95 % interval clustered by class."""
    low: float
    high: float
    p: float
    """Exact two-sided p-value of this pair alone (`embedcore.compare.scores.step_test`)."""


def paired_comparisons(right: Mapping[str, NDArray[np.bool_]], class_of: NDArray[np.int64]) -> list[PairedComparison]:
    """Return the comparison of each pair of the first models.

    Args:
        right: model → bool [n], whether it gets each query right.
        class_of: [n], the class of each query.
    """
    from embedcore.compare.scores import step_intervals, step_test  # here, since scipy takes long to import

    answers = [bits.astype(np.int64) for bits in list(right.values())[:MOST]]
    pairs = list(combinations(range(len(answers)), 2))
    if not pairs or not len(class_of):
        return []
    which = np.unique(class_of, return_inverse=True)[1].reshape(-1).astype(np.int64)
    classes = int(which.max()) + 1
    steps = [answers[first] - answers[second] for first, second in pairs]
    found = step_intervals(np.stack(steps).astype(np.float64), which, classes)
    made = []
    for place, ((first, second), step) in enumerate(zip(pairs, steps, strict=True)):
        alone, others = int((step > 0).sum()), int((step < 0).sum())
        mean, low, high = (round(float(values[place]), 4) for values in found)
        p = float(f"{step_test(step, which, classes).p:.2g}")
        made.append(PairedComparison(first, second, alone, others, mean, low, high, p))
    return made
