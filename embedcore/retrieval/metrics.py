"""Retrieval metrics of labelled embeddings: per query, mean over queries (micro) and over classes (macro)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcore.errors import UsageError, whole_number
from embedcore.frames import import_pandas
from embedcore.images.ceilings import reference_counts
from embedcore.plain import counted
from embedcore.retrieval.inputs import labels_of, unit_rows
from embedcore.retrieval.resampling import summary
from embedcore.retrieval.search import Neighbours, nearest, nearest_except
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray
from embedcore.retrieval.votes import nearest_mean, weighted_vote

VOTERS = 20
NEIGHBOUR_METRICS = ("acc", "acc5", "acc5_norm", "hit5", "map_at_r", "r_precision", "knn20")
METRICS = (*NEIGHBOUR_METRICS, "centroid")
"""Each has a variant ``<name>_macro``."""

_HELD = 2**23  # neighbours in memory at once
_FEW = 512  # largest number of neighbours in one search of all queries
_BLOCK = 2**20  # neighbours whose ranks are counted at once


@dataclass(frozen=True)
class Scores:
    """How well labelled embeddings retrieve their own classes. All values are fractions, 0-1.

    values: metric, and metric + ``_macro``, → value · ci95: the same names → (low, high), classes resampled ·
    scored: bool [n_queries], whether a query has a reference of its class · per_query: metric → float64 [n_scored] ·
    classes: int64 [n_scored], labels of the scored queries (for text, the index among all sorted labels) · hits5: uint8
    [n_queries], number of the 5 nearest of the query's class · rank1: bool [n_queries], whether the nearest is. Queries
    that are not scored have hits5 0 and rank1 False. neighbours: the nearest of each query, [n_queries, 5], with fewer
    columns for fewer references.
    """

    values: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    per_query: dict[str, DoubleArray]
    classes: IntArray
    scored: npt.NDArray[np.bool_]
    hits5: npt.NDArray[np.uint8]
    rank1: npt.NDArray[np.bool_]
    neighbours: Neighbours

    def __repr__(self) -> str:
        queries, (low, high) = counted(len(self.scored), "query", "queries"), self.ci95["acc"]
        acc = f"acc {self.values['acc']:.3f} (95 % interval {low:.3f} to {high:.3f})"
        return f"Scores of {queries}: {acc}, acc5 {self.values['acc5']:.3f}"

    @property
    def lone_queries(self) -> int:
        """Number of queries whose class has no (other) reference; they are not scored."""
        return int(np.count_nonzero(~self.scored))

    def to_frame(self) -> Any:
        """Return a DataFrame with a row for each metric: ``value`` and its 95 % interval from ``low`` to ``high``."""
        rows = {name: (value, *self.ci95[name]) for name, value in self.values.items()}
        return import_pandas().DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def score(
    query_embeddings: npt.ArrayLike,
    query_labels: npt.ArrayLike,
    reference_embeddings: npt.ArrayLike | None = None,
    reference_labels: npt.ArrayLike | None = None,
    *,
    normalize: bool = False,
    device: str = "cpu",
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score how well queries retrieve references of their class.

    ``score(embeddings, labels)`` is leave-one-out: each row is a query and a reference for all others.

    Args:
        query_embeddings: [n_queries, d], rows L2-normalised: an array or a tensor, as ``nearest`` takes them.
        query_labels: class numbers (integers from 0) or class names (text) [n_queries].
        reference_embeddings: [n_references, d], likewise.
        reference_labels: [n_references], required with reference_embeddings.
        normalize: divide each row by its norm first.
        device: device of the search, see ``nearest``.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Raises:
        UsageError: as ``nearest``; also for labels that are missing, negative or of another number, no query with a
            reference of its class, resamples below 1 and a seed below 0.

    >>> rows = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
    >>> scores = score(rows, [0, 0, 1, 1])
    >>> scores.values["acc"], scores.values["acc5"]
    (0.5, 0.2)
    """
    if (reference_embeddings is None) != (reference_labels is None):
        raise UsageError("pass reference embeddings and reference labels together, or neither for leave-one-out")
    resamples, seed = whole_number(resamples, "resamples", 1), whole_number(seed, "seed", 0)
    queries = unit_rows(query_embeddings, "queries", normalize=normalize)
    labels = labels_of(query_labels, len(queries), "query")
    references = other = None
    if reference_embeddings is not None and reference_labels is not None:
        references = unit_rows(reference_embeddings, "references", normalize=normalize)
        other = labels_of(reference_labels, len(references), "reference")
        if (labels.dtype.kind == "U") != (other.dtype.kind == "U"):
            raise UsageError(
                f"query labels are {labels.dtype} and reference labels {other.dtype}: both must be numbers or both text"
            )
    if labels.dtype.kind == "U":
        _, codes = np.unique(labels if other is None else np.concatenate([labels, other]), return_inverse=True)
        labels, other = codes[: len(queries)], None if other is None else codes[len(queries) :]
    counts = reference_counts(labels, other)
    scored = counts > 0
    if not scored.any():
        raise UsageError(
            f"no query can be scored: none of the {len(labels)} queries has a reference of its class"
            + (" besides itself (leave-one-out)" if other is None else "")
        )
    values, hits5, neighbours = _from_embeddings(queries, labels, references, other, counts, device)
    per_query = {name: column[scored] for name, column in values.items()}
    guess = nearest_mean(queries, labels, references, other)
    per_query["centroid"] = (guess == labels)[scored].astype(np.float64)
    classes = labels[scored]
    means, ci95 = summary(per_query, classes, resamples=resamples, seed=seed)
    return Scores(means, ci95, per_query, classes, scored, hits5, values["acc"] > 0, neighbours)


def score_across(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray,
    reference_labels: IntArray | None = None,
) -> dict[str, DoubleArray]:
    """Return the `NEIGHBOUR_METRICS` per query [n_scored] of queries and references that two models embedded.

    Args:
        queries: float32 [n_queries, d], rows L2-normalised.
        labels: [n_queries], class numbers.
        references: float32 [n_references, d], likewise.
        reference_labels: [n_references]; None for leave-one-out: reference i is the image of query i, which does not
            find it.

    Queries without a reference of their class are left out.
    """
    counts = reference_counts(labels, reference_labels)
    itself = np.arange(len(queries)) if reference_labels is None else None
    values, _, _ = _from_embeddings(queries, labels, references, reference_labels, counts, "cpu", itself)
    return {name: column[counts > 0] for name, column in values.items()}


def _from_embeddings(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray | None,
    reference_labels: IntArray | None,
    counts: IntArray,
    device: str,
    itself: IntArray | None = None,
) -> tuple[dict[str, DoubleArray], npt.NDArray[np.uint8], Neighbours]:
    """Return the values of ``_per_query`` for all queries, and their 5 nearest, with bounded memory.

    One search serves all queries whose R is not large. Queries of large classes, which need as many neighbours as their
    class has references, are searched again in blocks. ``itself`` [n]: the reference that a query must not find.
    """
    others = labels if reference_labels is None else reference_labels
    enough = max(VOTERS, min(_FEW, _HELD // len(queries)))
    k = max(VOTERS, int(counts[counts <= enough].max(initial=0)))
    if references is None:  # in one set each pair is multiplied once
        found = nearest(queries, None, k, device=device)
        references, itself = queries, np.arange(len(queries))
    else:
        found = nearest_except(queries, references, itself, k, device=device)
    # Copies, so that the other neighbours are freed.
    few = Neighbours(found.indices[:, :5].copy(), found.similarities[:, :5].copy())
    values, hits5 = _per_query(found, labels, others, counts)
    large = np.flatnonzero(counts > k)
    large = large[np.argsort(counts[large], kind="stable")]
    while len(large):
        rows = large[: max(1, _HELD // int(counts[large[-1]]))]
        large = large[len(rows) :]
        most = int(counts[rows].max())
        left_out = None if itself is None else itself[rows]
        found = nearest_except(queries[rows], references, left_out, most, device=device)
        again, hits5[rows] = _per_query(found, labels[rows], others, counts[rows])
        for name, column in again.items():
            values[name][rows] = column
    return values, hits5, few


def _per_query(
    neighbours: Neighbours, labels: IntArray, reference_labels: IntArray, counts: IntArray
) -> tuple[dict[str, DoubleArray], npt.NDArray[np.uint8]]:
    """Return metric → [n], and hits among the 5 nearest [n]; queries without a reference are computed with R = 1."""
    n, k = neighbours.indices.shape
    values = {name: np.zeros(n) for name in NEIGHBOUR_METRICS}
    hits5 = np.zeros(n, dtype=np.uint8)
    if k == 0:
        return values, hits5
    ranks = np.arange(1, k + 1)
    height = max(1, _BLOCK // k)
    for top in range(0, n, height):
        rows = slice(top, min(top + height, n))
        found = reference_labels[neighbours.indices[rows]]
        hits = found == labels[rows, None]
        relevant = np.maximum(counts[rows], 1)
        of_five = hits[:, :5].sum(axis=1)
        hits5[rows] = of_five
        values["acc"][rows] = hits[:, 0]
        values["acc5"][rows] = of_five / 5
        values["acc5_norm"][rows] = of_five / np.minimum(relevant, 5)
        values["hit5"][rows] = of_five > 0
        # "A Metric Learning Reality Check", section 3.2: only the first R ranks count, both sums are over R.
        within = hits & (ranks <= relevant[:, None])
        values["r_precision"][rows] = within.sum(axis=1) / relevant
        precision = np.cumsum(within, axis=1, dtype=np.int32) / ranks
        values["map_at_r"][rows] = np.where(within, precision, 0.0).sum(axis=1) / relevant
        vote = weighted_vote(found[:, :VOTERS], neighbours.similarities[rows, :VOTERS])
        values["knn20"][rows] = vote == labels[rows]
    return values, hits5
