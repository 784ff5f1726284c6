from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval import gallery_size
from embedcore.retrieval.gallery_size import classes_ahead, right_among
from embedcore.retrieval.metrics import score


def by_hand(queries, labels, references, reference_labels, *, itself):
    """Numbers of classes ahead, of all and of lower labels, one query and one class at a time."""
    whole, before = [], []
    for i, (query, label) in enumerate(zip(queries, labels, strict=True)):
        nearest = {}
        for j, (reference, other) in enumerate(zip(references, reference_labels, strict=True)):
            if not (itself and i == j):
                nearest[other] = max(nearest.get(other, -2.0), float(query @ reference))
        if label not in nearest:
            whole.append(-1)
            before.append(-1)
            continue
        ahead = [other for other, similarity in nearest.items() if similarity > nearest[label]]
        whole.append(len(ahead))
        before.append(sum(other < label for other in ahead))
    return whole, before


@pytest.mark.parametrize("leave_one_out", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_equals_counting_by_hand(embeddings, seed, leave_one_out, monkeypatch):
    monkeypatch.setattr(gallery_size, "_PRODUCTS", 150)  # several blocks
    rng = np.random.default_rng(seed)
    rows, labels = embeddings(40, 6, seed=seed, centres=9, spread=0.5), rng.integers(0, 12, 40)
    labels[seed] = 12  # alone in its class
    if leave_one_out:
        found = classes_ahead(rows, labels)
        expected = by_hand(rows, labels, rows, labels, itself=True)
    else:
        others, of_others = embeddings(50, 6, seed=seed + 10, centres=9, spread=0.5), rng.integers(2, 15, 50)
        found = classes_ahead(rows, labels, others, of_others)
        expected = by_hand(rows, labels, others, of_others, itself=False)
    assert (found.whole.tolist(), found.before.tolist()) == expected
    assert (found.whole == -1).any() and (found.whole > 0).any()


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_a_query_without_a_class_ahead_is_right(embeddings, leave_one_out):
    labels = np.repeat(np.arange(20), 4)
    rows, others = (embeddings(80, 8, seed=seed, centres=20, spread=0.6) for seed in (0, 1))
    sides = () if leave_one_out else (others, labels)
    found = classes_ahead(rows, labels, *sides)
    assert (found.whole == 0).tolist() == score(rows, labels, *sides, resamples=1).rank1.tolist()


@given(st.integers(2, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_smaller_galleries_are_averaged_over_all_choices(classes, data):
    kept = data.draw(st.integers(2, classes))
    ahead = data.draw(st.integers(0, classes - 1))
    others = range(1, classes)  # class 0 is the query's own; those up to `ahead` are nearer
    choices = list(itertools.combinations(others, kept - 1))
    right = sum(all(other > ahead for other in choice) for choice in choices) / len(choices)
    assert right_among(np.array([ahead, -1]), classes, kept).tolist() == pytest.approx([right, 0.0])


def test_each_query_may_have_a_gallery_of_its_own():
    ahead, classes, kept = np.array([0, 3, 1, 5]), np.array([1, 9, 4, 6]), np.array([1, 4, 4, 2])
    each = [right_among(ahead[i : i + 1], int(classes[i]), int(kept[i]))[0] for i in range(4)]
    assert right_among(ahead, classes, kept).tolist() == pytest.approx(each)
    assert each[0] == 1 and each[2] == 0 and 0 < each[1] < 1


def test_the_accuracy_of_random_smaller_galleries_is_met_on_average(embeddings):
    """What the race forecasts from: galleries of fewer classes, drawn for real."""
    labels = np.repeat(np.arange(24), 2)
    rows = embeddings(48, 6, seed=3, centres=24, spread=0.7)
    expected = right_among(classes_ahead(rows, labels).whole, 24, 6).mean()
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(600):
        of_six = np.isin(labels, rng.choice(24, 6, replace=False))
        drawn.append((classes_ahead(rows[of_six], labels[of_six]).whole == 0).mean())
    assert np.mean(drawn) == pytest.approx(expected, abs=5 * np.std(drawn) / np.sqrt(len(drawn)))
