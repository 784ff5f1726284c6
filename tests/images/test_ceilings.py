from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.images.ceilings import acc5_ceiling, chance_acc, reference_counts

LABELS = st.lists(st.integers(-3, 4), min_size=1, max_size=30).map(np.array)


@given(LABELS, st.none() | LABELS)
def test_equals_counting_one_by_one(queries, references):
    counts, chances = [], []
    for i, label in enumerate(queries):
        others = [x for j, x in enumerate(queries) if j != i] if references is None else list(references)
        counts.append(others.count(label))
        if counts[-1]:
            chances.append(counts[-1] / len(others))
    assert reference_counts(queries, references).tolist() == counts
    scored = [count for count in counts if count]
    ceiling = np.mean([min(5, count) / 5 for count in scored]) if scored else 0.0
    assert acc5_ceiling(queries, references) == pytest.approx(ceiling)
    assert chance_acc(queries, references) == pytest.approx(np.mean(chances) if chances else 0.0)


def test_no_references_at_all():
    queries, nothing = np.array([1, 2]), np.zeros(0, dtype=np.int64)
    assert reference_counts(queries, nothing).tolist() == [0, 0]
    assert acc5_ceiling(queries, nothing) == 0
    assert chance_acc(queries, nothing) == 0


def test_a_perfect_embedding_reaches_the_ceiling_and_a_random_one_chance():
    from embedcore.retrieval.metrics import score

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 60)
    perfect = np.eye(12, dtype=np.float32)[labels]
    scores = score(perfect, labels, resamples=2)
    assert scores.values["acc5"] == pytest.approx(acc5_ceiling(labels, None))
    assert scores.values["acc5_norm"] == 1
    random = rng.standard_normal((60, 40)).astype(np.float32)
    accs = []
    for _ in range(60):
        random = rng.permutation(random)
        unit = random / np.linalg.norm(random, axis=1, keepdims=True)
        accs.append(score(unit, labels, resamples=2).values["acc"])
    assert np.mean(accs) == pytest.approx(chance_acc(labels, None), abs=0.03)
