"""Compatibility of a model's new embeddings with stored old ones: keep the index, rotate the queries, or re-embed.

The literature calls embeddings that can search an index of an earlier model backward-compatible (Shen, Xiong, Xia and
Soatto, "Towards Backward-Compatible Representation Learning", CVPR 2020). Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedcore.compare.labelled_embeddings import ImageLabels
from embedcore.compare.labelled_retrieval import METRICS, Floats, LabelledRetrieval, ScoreChange
from embedcore.compare.statistics import paired_by_class, sign_flips
from embedcore.retrieval.alignment import orthogonal_map

TOLERANCES: Mapping[str, float] = {"acc": 0.005, "acc5": 0.01}
"""The largest acceptable loss of each score, a fraction of 1; the gate's default limits."""

SHARES = {"reembedded_10": 0.1, "reembedded_50": 0.5, "reembedded_90": 0.9}
"""Searches with new queries in which this share of the references is new, too."""

_GRID = 2**15  # steps to which differences of map_at_r are rounded for their test

Advice = Literal["keep", "rotate", "re-embed"]


@dataclass(frozen=True)
class SearchScores:
    """The scores of one choice of query and reference embeddings."""

    scores: Mapping[str, float]
    """Metric → mean over the queries."""
    changes: Mapping[str, ScoreChange] = field(default_factory=dict)
    """Metric → change against ``old_old``, paired by query and clustered by class; empty for ``old_old`` itself."""

    def within(self, tolerances: Mapping[str, float]) -> bool:
        """Whether each loss above its tolerance is excluded: the lower end of the interval lies above it."""
        return all(self.changes[metric].low >= -limit for metric, limit in tolerances.items())

    def beyond(self, tolerances: Mapping[str, float]) -> str:
        """Return the first metric whose loss certainly exceeds its tolerance; "" if there is none."""
        return next((metric for metric, limit in tolerances.items() if self.changes[metric].high < -limit), "")


@dataclass(frozen=True, eq=False)
class Compatibility:
    """One model's answer."""

    advice: Advice
    certain: bool
    """Whether the intervals decide; a re-embedding that is not certain may turn out to be unnecessary."""
    equal: bool
    """Whether all embeddings are equal to the last bit."""
    distance: float | None
    """Mean distance between an image's two embeddings (of length 1); None for embeddings of different widths."""
    searches: Mapping[str, SearchScores]
    """``old_old``, ``new_new``, ``new_old`` (queries first), those of `SHARES`, ``rotated`` (new_old through a map)."""
    tolerances: Mapping[str, float]
    matrix: NDArray[np.float32] | None = None
    """[d, d] if the advice is to rotate: ``new @ matrix`` searches the old index. Fitted on all images."""


def compatibility(
    old: Floats,
    new: Floats,
    images: ImageLabels,
    *,
    tolerances: Mapping[str, float] = TOLERANCES,
) -> Compatibility:
    """Judge whether queries embedded by the new model can search references embedded by the old one.

    ``keep`` if for each score with a tolerance the 95 % interval of the change against ``old_old`` excludes a larger
    loss; else ``rotate`` if that holds through an orthogonal map; else ``re-embed``. The map is fitted on the images of
    half of the classes and judged on the queries of the other half, then the other way around.

    Args:
        old: [n, d], rows L2-normalised.
        new: [n, e], likewise; the same images in the same order.
        images: their labels, of two or more classes, and roles; at least one query has a reference of its class.
        tolerances: acc, acc5 or map_at_r → largest acceptable loss.
    """
    retrieval = LabelledRetrieval(images)

    def scored(queries: Floats, references: Floats) -> NDArray[np.float64]:
        return retrieval.scores((queries[images.is_query], references[images.is_reference]))

    base = scored(old, old)
    before = SearchScores(_means(base))
    if old.shape == new.shape and np.array_equal(old, new):
        same = SearchScores(before.scores, _changes(base, base, retrieval.class_of))
        searches = dict.fromkeys(("new_new", "new_old", *SHARES, "rotated"), same)
        return Compatibility("keep", True, True, 0.0, {"old_old": before, **searches}, tolerances)

    def search(queries: Floats, references: Floats) -> SearchScores:
        found = scored(queries, references)
        return SearchScores(_means(found), _changes(base, found, retrieval.class_of))

    searches = {"old_old": before, "new_new": search(new, new)}
    if old.shape[1] != new.shape[1]:
        return Compatibility("re-embed", True, False, None, searches, tolerances)
    searches["new_old"] = search(new, old)
    order = np.random.default_rng(0).permutation(np.flatnonzero(images.is_reference))
    for name, share in SHARES.items():
        mixed = old.copy()
        chosen = order[: round(share * len(order))]
        mixed[chosen] = new[chosen]
        searches[name] = search(new, mixed)
    searches["rotated"] = search(_rotated(old, new, halves(images.labels)), old)
    distance = float(np.linalg.norm(new.astype(np.float64) - old, axis=1).mean())
    matrix = None
    advice: Advice = "re-embed"
    if searches["new_old"].within(tolerances):
        advice = "keep"
    elif searches["rotated"].within(tolerances):
        advice, matrix = "rotate", orthogonal_map(new, old).astype(np.float32)
    lost = all(searches[name].beyond(tolerances) for name in ("new_old", "rotated"))
    return Compatibility(advice, advice != "re-embed" or lost, False, distance, searches, tolerances, matrix)


def halves(labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """Return whether each image [n] is in the second half: whole classes, about half of the images.

    Classes are taken in random order, so that a map is judged on images whose class it has not seen. With two or more
    classes neither half is empty.
    """
    classes, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(classes))
    before = np.cumsum(sizes[order]) - sizes[order]
    second = np.zeros(len(classes), dtype=np.bool_)
    second[order] = 2 * before + sizes[order] > len(labels)
    return second[which.reshape(-1)]


def _rotated(old: Floats, new: Floats, second: NDArray[np.bool_]) -> Floats:
    """Return the new embeddings, each mapped by a matrix that was fitted on the other half."""
    rotated = np.empty_like(new)
    for half in (False, True):
        judged = second == half
        rotated[judged] = new[judged] @ orthogonal_map(new[~judged], old[~judged])
    return rotated


def _means(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(METRICS, values.mean(axis=1).tolist(), strict=True))


def _changes(
    base: NDArray[np.float64], new: NDArray[np.float64], class_of: NDArray[np.int64]
) -> dict[str, ScoreChange]:
    """Return the changes of the `METRICS` from `base` to `new`, both [m, n_scored]; `class_of` [n_scored]."""
    sums = np.stack([np.bincount(class_of, row) for row in new - base]).astype(np.float64)
    columns = np.stack(paired_by_class(sums, np.bincount(class_of)), axis=1).tolist()
    tests = [_test(metric, row) for metric, row in zip(METRICS, sums, strict=True)]
    rows = zip(METRICS, columns, tests, strict=True)
    return {metric: ScoreChange(change, low, high, p) for metric, (change, low, high), p in rows}


def _test(metric: str, sums: NDArray[np.float64]) -> float:
    """Return the p-value of `sign_flips` over classes, from the sum of the differences in each class [C]."""
    steps = {"acc": 1.0, "acc5": 5.0}  # a query's differences are multiples of 1 and of 1/5
    scale = steps.get(metric, _GRID / max(float(np.abs(sums).sum()), 1e-12))
    return sign_flips(np.rint(sums * scale).astype(np.int64)).p
