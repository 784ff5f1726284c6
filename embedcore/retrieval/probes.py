"""Probes: how well simple classifiers of labelled embeddings predict the classes of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedcore.images.ceilings import reference_counts
from embedcore.retrieval.few_shot import few_shot
from embedcore.retrieval.logistic import ITERATIONS, logistic_right, why_not
from embedcore.retrieval.outcomes import SHOTS, Outcomes
from embedcore.retrieval.resampling import summary
from embedcore.retrieval.ridge import ridge_right
from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray


@dataclass(frozen=True)
class ProbeScores:
    """The scores of probes. All values are fractions, 0-1.

    values, ci95: as in `embedcore.retrieval.metrics.Scores`, for the names in `PROBES` that could be measured ·
    outcomes: name → the outcome of each query · notes: what was left out, and why.
    """

    values: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    outcomes: dict[str, Outcomes]
    notes: tuple[str, ...]


def probe(
    queries: FloatArray,
    query_labels: IntArray,
    references: FloatArray | None = None,
    reference_labels: IntArray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> ProbeScores:
    """Score classifiers that are fitted to references and judged on queries.

    ``probe(embeddings, labels)`` is leave-one-out: each row is predicted from the others, for logistic regression in
    five folds. Queries whose class has no (other) reference are left out, as in `embedcore.retrieval.metrics.score`.

    Args:
        queries: float32 [n_queries, d], rows L2-normalised.
        query_labels: class numbers [n_queries], at least one with a reference of its class.
        references: float32 [n_references, d], likewise.
        reference_labels: [n_references].
        resamples: number of bootstrap resamples.
        seed: seed of the draws, the folds and the bootstrap.
    """
    sides = queries, query_labels, references, reference_labels
    scored = reference_counts(query_labels, reference_labels) > 0
    outcomes = {"probe_ridge": Outcomes(scored & ridge_right(*sides), 1, scored)}
    notes = []
    reason = why_not(query_labels, reference_labels)
    if reason:
        notes.append(f"probe_logistic left out: {reason}")
    else:
        right, unfinished = logistic_right(*sides, seed=seed)
        outcomes["probe_logistic"] = Outcomes(scored & right, 1, scored)
        if unfinished:
            notes.append(f"probe_logistic: {unfinished} of its fits ended after {ITERATIONS} iterations")
    curve = few_shot(*sides, seed=seed)
    outcomes |= {f"few_shot_{shots}": found for shots, found in curve.items()}
    missing = [f"few_shot_{shots}" for shots in SHOTS if shots not in curve]
    if missing:
        notes.append(f"{', '.join(missing)} left out: too few classes have that many references")
    values, ci95 = _summary(outcomes, query_labels, resamples, seed)
    return ProbeScores(values, ci95, outcomes, tuple(notes))


def _summary(
    outcomes: dict[str, Outcomes], labels: IntArray, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return the values and intervals; scores that are judged on the same queries share their resamples."""
    values: dict[str, float] = {}
    ci95: dict[str, tuple[float, float]] = {}
    groups: dict[bytes, dict[str, DoubleArray]] = {}
    for name, found in outcomes.items():
        assert found.judged is not None
        groups.setdefault(found.judged.tobytes(), {})[name] = found.per_query()
    for judged, per_query in groups.items():
        of_group = summary(per_query, labels[np.frombuffer(judged, np.bool_)], resamples=resamples, seed=seed)
        values |= of_group[0]
        ci95 |= of_group[1]
    return values, ci95
