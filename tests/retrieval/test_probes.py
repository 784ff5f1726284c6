"""Scores of probes: means of their outcomes, with the intervals of the other scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.images.ceilings import reference_counts
from embedcore.retrieval.logistic import logistic_right
from embedcore.retrieval.outcomes import PROBES
from embedcore.retrieval.probes import probe
from embedcore.retrieval.resampling import intervals
from embedcore.retrieval.ridge import ridge_right


def grouped(labels, dim=8, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    rows = np.random.default_rng(7).standard_normal((labels.max() + 1, dim))[labels]
    rows += spread * rng.standard_normal((len(labels), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("alone", [True, False])
def test_scores_are_means_over_the_judged_queries(alone):
    labels = np.repeat(np.arange(14), [1, *[12] * 9, *[4] * 4])  # class 0 has one image
    others = np.repeat(np.arange(1, 14), [*[11] * 9, *[3] * 4])
    sides = (grouped(labels), labels, *(() if alone else (grouped(others, seed=1), others)))
    found = probe(*sides, seed=5)
    scored = labels > 0
    assert found.notes == () and list(found.outcomes) == list(PROBES)
    assert set(found.values) == set(found.ci95) == {*PROBES, *(f"{name}_macro" for name in PROBES)}
    for name, outcomes in found.outcomes.items():
        judged = labels <= 9 if name in ("few_shot_5", "few_shot_10") else labels < 14
        assert outcomes.judged.tolist() == (judged & scored).tolist()
        assert not outcomes.right[~outcomes.judged].any()
        shares = outcomes.right[outcomes.judged] / outcomes.tries
        classes = labels[outcomes.judged]
        assert found.values[name] == pytest.approx(shares.mean())
        macro = np.mean([shares[classes == label].mean() for label in np.unique(classes)])
        assert found.values[f"{name}_macro"] == pytest.approx(macro)
        expected = intervals({name: shares}, classes, seed=5)
        assert found.ci95[name] == pytest.approx(expected[name])
        assert 0.2 < found.values[name] < 1
    assert found.outcomes["probe_ridge"].right.tolist() == (ridge_right(*sides) & scored).tolist()
    assert found.outcomes["probe_logistic"].right.tolist() == (logistic_right(*sides, seed=5)[0] & scored).tolist()


def test_what_is_left_out_is_noted(monkeypatch):
    labels = np.repeat(np.arange(6), 3)
    monkeypatch.setattr("embedcore.retrieval.logistic.MOST", 100)
    found = probe(grouped(labels), labels)
    assert list(found.outcomes) == ["probe_ridge", "few_shot_1", "few_shot_2"]
    assert found.notes == (
        "probe_logistic left out: 18 references x 6 classes x 5 folds are more than 100",
        "few_shot_5, few_shot_10 left out: too few classes have that many references",
    )


def test_a_fit_that_ended_early_is_noted(monkeypatch):
    labels = np.repeat(np.arange(6), 3)
    monkeypatch.setattr("embedcore.retrieval.logistic.ITERATIONS", 1)
    monkeypatch.setattr("embedcore.retrieval.probes.ITERATIONS", 1)
    assert probe(grouped(labels), labels).notes[0] == "probe_logistic: 5 of its fits ended after 1 iterations"


_LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=25).map(np.array)


@settings(max_examples=25, deadline=None)
@given(_LABELS, _LABELS, st.booleans())
def test_any_sizes_of_classes_give_fractions(labels, others, alone):
    counts = reference_counts(labels, None if alone else others)
    if not counts.any():
        return
    found = probe(grouped(labels), labels, *(() if alone else (grouped(others, seed=1), others)), resamples=20)
    for name, outcomes in found.outcomes.items():
        assert outcomes.judged.any() and not (outcomes.judged & (counts == 0)).any()
        low, high = found.ci95[name]
        assert 0 <= low <= found.values[name] <= high <= 1
