"""The few-shot curve equals a plain loop over draws and queries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval.few_shot import few_shot
from embedcore.retrieval.outcomes import SHOTS
from embedcore.retrieval.votes import nearest_mean


def unit(n, dim=6, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_hand(queries, labels, references=None, reference_labels=None, *, seed=0, draws=10, step=1):
    """k → (right, number of draws that judged it) of each query, from the definition, in lists."""
    alone = references is None
    others, other_labels = (queries, labels) if alone else (references, reference_labels)
    rng = np.random.default_rng(seed)
    chance = rng.random(len(labels))
    of_class = {c: [j for j in range(len(others)) if other_labels[j] == c] for c in sorted({*other_labels})}
    available = [len(of_class.get(label, ())) - alone for label in labels]
    turns = sorted((q for q in range(len(labels)) if available[q] > 0), key=lambda q: (labels[q], chance[q]))
    scored = {labels[q]: available[q] for q in turns}
    having = {k: sum(count >= k for count in scored.values()) for k in SHOTS}
    curve = [k for k in SHOTS if having[k] >= 2 and having[k] >= len(scored) / 2]
    found = {k: [[0, 0] for _ in labels] for k in curve}
    for draw in range(draws if curve else 0):
        chance = rng.random(len(others))
        ordered = {c: sorted(members, key=lambda j: chance[j]) for c, members in of_class.items()}
        for turn, q in enumerate(turns):
            if turn % step != draw % step:
                continue
            for k in curve:
                if available[q] < k:
                    continue
                best = None
                for c, members in ordered.items():
                    drawn = [j for j in members if not (alone and j == q)][:k] if c == labels[q] else members[:k]
                    mean = np.mean([others[j].astype(float) for j in drawn], axis=0)
                    value = float(queries[q].astype(float) @ mean / np.linalg.norm(mean))
                    if best is None or value > best[0]:
                        best = value, c
                found[k][q][0] += best[1] == labels[q]
                found[k][q][1] += 1
    return found


def check(found, expected, tries=10):
    assert list(found) == list(expected)
    for k, outcomes in found.items():
        assert outcomes.tries == tries
        assert outcomes.right.tolist() == [right for right, _ in expected[k]]
        assert outcomes.judged.tolist() == [seen > 0 for _, seen in expected[k]]
        assert {seen for _, seen in expected[k]} <= {0, tries}


@pytest.mark.parametrize("seed", [0, 1])
def test_leave_one_out_equals_a_loop(seed):
    labels = np.random.default_rng(seed).permutation(np.repeat([3, 5, 8, 9], [12, 11, 4, 1]))
    rows = unit(len(labels), seed=seed)
    found = few_shot(rows, labels, seed=seed)
    assert list(found) == [1, 2, 5, 10]
    check(found, by_hand(rows, labels, seed=seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_queries_and_references_equal_a_loop(seed):
    rng = np.random.default_rng(seed)
    labels, others = rng.permutation(np.arange(40) % 6), rng.permutation(np.repeat([0, 1, 2, 3, 7], [10, 5, 6, 2, 3]))
    sides = unit(40), labels, unit(len(others), seed=9), others
    found = few_shot(*sides, seed=seed)
    assert list(found) == [1, 2, 5]  # one of the four classes with a query has ten
    check(found, by_hand(*sides, seed=seed))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.booleans(),
)
def test_any_sizes_of_classes_equal_a_loop(labels, others, alone):
    sides = [unit(len(labels)), np.array(labels)]
    sides += [] if alone else [unit(len(others), seed=1), np.array(others)]
    check(few_shot(*sides), by_hand(*sides))


@pytest.mark.parametrize(("most", "step", "tries"), [(10**9, 1, 10), (1400, 5, 2), (700, 10, 1), (300, 17, 1)])
def test_draws_share_many_queries(most, step, tries):
    labels = np.random.default_rng(0).permutation(np.arange(100) % 5)
    rows = unit(100)
    found = few_shot(rows, labels, most=most)
    check(found, by_hand(rows, labels, step=step), tries)
    judged = found[1].judged
    assert judged.sum() == (60 if step == 17 else 100)
    assert (np.bincount(labels[judged]) >= 10).all()  # of every class


def test_all_references_of_a_class_are_its_mean():
    labels = np.arange(60) % 12
    queries, references = unit(80, seed=4), unit(60)
    wanted = np.arange(80) % 12
    found = few_shot(queries, wanted, references, labels)[5]
    expected = nearest_mean(queries, wanted, references, labels) == wanted
    assert found.right.tolist() == (10 * expected).tolist() and 0 < expected.mean() < 1


def test_the_only_other_image_is_always_drawn():
    labels = np.arange(20) // 2
    rows = np.repeat(np.eye(10, dtype=np.float32), 2, axis=0)
    assert few_shot(rows, labels)[1].right.tolist() == [10] * 20
    assert [*few_shot(rows, labels)] == [1]
    assert few_shot(rows[:3], np.arange(3)) == {}


def test_draws_follow_the_seed():
    rows, labels = unit(100), np.arange(100) % 5
    same, other = few_shot(rows, labels, seed=1), few_shot(rows, labels, seed=2)
    assert (same[1].right == few_shot(rows, labels, seed=1)[1].right).all()
    assert (same[1].right != other[1].right).any()
