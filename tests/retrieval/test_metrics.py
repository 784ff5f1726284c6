from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.retrieval import metrics
from embedcore.retrieval.metrics import METRICS, NEIGHBOUR_METRICS, score, score_across
from embedcore.retrieval.search import nearest_except
from embedcore.retrieval.votes import nearest_mean, weighted_vote


def by_hand(queries, labels, references, reference_labels, across=False):
    """Every metric of section 5 of the design, one query at a time, straight from its definition."""
    alone = references is None or across
    others, other_labels = (queries, labels) if references is None else (references, reference_labels)
    rows, hits5, rank1 = [], [], []
    for q in range(len(queries)):
        kept = [j for j in range(len(others)) if not (alone and j == q)]
        similarity = {j: float(np.sum(queries[q].astype(float) * others[j].astype(float))) for j in kept}
        order = sorted(kept, key=lambda j: (-similarity[j], j))
        hit = [bool(other_labels[j] == labels[q]) for j in order]
        relevant = sum(hit)
        hits5.append(sum(hit[:5]))
        rank1.append(hit[0] if hit else False)
        if relevant == 0:
            continue
        votes: dict[int, float] = {}
        for j in order[:20]:
            weight = np.exp((similarity[j] - similarity[order[0]]) / 0.07)
            votes[other_labels[j]] = votes.get(other_labels[j], 0.0) + weight
        means = {}
        for c in sorted({other_labels[j] for j in kept}):
            total = np.sum([others[j].astype(float) for j in kept if other_labels[j] == c], axis=0)
            norm = np.linalg.norm(total)
            means[c] = float(queries[q].astype(float) @ (total / norm if norm > 0 else total))
        best = max(means.values())
        rows.append(
            {
                "acc": hit[0],
                "acc5": sum(hit[:5]) / 5,
                "acc5_norm": sum(hit[:5]) / min(5, relevant),
                "hit5": any(hit[:5]),
                "map_at_r": sum(sum(hit[: i + 1]) / (i + 1) for i in range(relevant) if hit[i]) / relevant,
                "r_precision": sum(hit[:relevant]) / relevant,
                "knn20": min(votes, key=lambda c: (-votes[c], c)) == labels[q],
                "centroid": min(c for c, value in means.items() if value >= best - 1e-12) == labels[q],
                "class": labels[q],
            }
        )
    return rows, hits5, rank1


def check(queries, labels, references=None, reference_labels=None):
    rows, hits5, rank1 = by_hand(queries, labels, references, reference_labels)
    if not rows:
        with pytest.raises(UsageError, match="no query can be scored"):
            score(queries, labels, references, reference_labels)
        return
    scores = score(queries, labels, references, reference_labels, resamples=20)
    assert scores.hits5.tolist() == hits5
    assert scores.rank1.tolist() == rank1
    assert scores.lone_queries == len(queries) - len(rows)
    assert scores.classes.tolist() == [row["class"] for row in rows]
    assert set(scores.values) == set(scores.ci95) == {*METRICS, *(f"{name}_macro" for name in METRICS)}
    for name in METRICS:
        expected = np.array([row[name] for row in rows], dtype=float)
        np.testing.assert_allclose(scores.per_query[name], expected, atol=1e-12, err_msg=name)
        assert scores.values[name] == pytest.approx(expected.mean())
        macro = np.mean([expected[scores.classes == c].mean() for c in np.unique(scores.classes)])
        assert scores.values[f"{name}_macro"] == pytest.approx(macro)


@st.composite
def labelled(draw: st.DrawFn, least: int = 1, most: int = 30):
    """Labels of few, some lone, classes, and rows of whole halves: ties and copies among them."""
    n = draw(st.integers(least, most))
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)))
    rows = np.zeros((n, 5), dtype=np.float32)
    for row in rows:
        places = draw(st.permutations(range(5)))[:4]
        row[places] = draw(st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4))
    return rows, labels


@settings(max_examples=60, deadline=None)
@given(labelled())
def test_leave_one_out_equals_the_definitions(data):
    check(*data)


@settings(max_examples=60, deadline=None)
@given(labelled(), labelled())
def test_queries_and_references_equal_the_definitions(left, right):
    check(*left, *right)


def test_larger_set_equals_the_definitions(embeddings):
    labels = np.random.default_rng(2).integers(0, 9, 150)
    check(embeddings(150, 12, centres=9, spread=0.7), labels)
    check(embeddings(60, 12), labels[:60], embeddings(90, 12, seed=1), labels[60:])


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_equals_pytorch_metric_learning(embeddings, leave_one_out):
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    rng = np.random.default_rng(4)
    labels = np.sort(rng.integers(0, 25, 400))
    centres = embeddings(25, 32, seed=9)
    rows = centres[labels] + 0.35 * rng.standard_normal((400, 32)).astype(np.float32)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    labels[:3] = [100, 101, 102]  # lone classes, which both leave out
    names = {"precision_at_1": "acc", "r_precision": "r_precision", "mean_average_precision_at_r": "map_at_r"}
    if leave_one_out:
        sides = rows, labels, None, None
    else:
        split = rng.permutation(400)
        sides = rows[split[:150]], labels[split[:150]], rows[split[150:]], labels[split[150:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for averaged, ending in ((False, ""), (True, "_macro")):
            judge = AccuracyCalculator(
                include=tuple(names), k="max_bin_count", avg_of_avgs=averaged, device=torch.device("cpu")
            )
            theirs = judge.get_accuracy(*sides)
            ours = score(*sides, resamples=2).values
            for name, value in theirs.items():
                assert ours[names[name] + ending] == pytest.approx(value, abs=1e-6)
    assert 0.2 < ours["acc"] < 0.98


def test_large_classes_are_searched_in_blocks(embeddings, monkeypatch):
    # One class of 200, many of 3, with copies across the border.
    labels = np.concatenate([np.zeros(200, dtype=int), np.repeat(np.arange(1, 41), 3)])
    rows = embeddings(320, 10, centres=5)
    rows[250] = rows[3]
    whole = score(rows, labels, resamples=2)
    references = score(rows[::2], labels[::2], rows, labels, resamples=2)
    asked = []
    monkeypatch.setattr(metrics, "_HELD", 4000)
    monkeypatch.setattr(metrics, "_BLOCK", 500)
    monkeypatch.setattr(metrics, "nearest_except", lambda *a, **k: asked.append(a[3]) or nearest_except(*a, **k))
    for before, sides in ((whole, (rows, labels)), (references, (rows[::2], labels[::2], rows, labels))):
        after = score(*sides, resamples=2)
        assert after.values == before.values
        assert (after.hits5 == before.hits5).all()
    assert asked.count(199) > 3
    assert set(asked) == {20, 199, 200}


@pytest.mark.parametrize("kind", [list, np.array, lambda names: np.array(names, dtype=object)])
def test_text_labels_are_classes_like_numbers(embeddings, kind):
    rows, labels = embeddings(80, 6), np.random.default_rng(0).integers(0, 8, 80)
    names = [f"class {label}" for label in labels]
    assert score(rows, kind(names), resamples=20).values == score(rows, labels, resamples=20).values
    # Some classes are on one side only, so that the sides alone would number their names differently.
    labels[:30] += 3
    names = [f"class {label:2}" for label in labels]
    text = score(rows[:30], kind(names[:30]), rows[30:], kind(names[30:]), resamples=20)
    numbers = score(rows[:30], labels[:30], rows[30:], labels[30:], resamples=20)
    assert (text.values, text.ci95) == (numbers.values, numbers.ci95)
    assert 0 < text.lone_queries < 30
    assert text.classes.tolist() == numbers.classes.tolist()


def test_scores_as_a_frame(embeddings, monkeypatch):
    scores = score(embeddings(40, 6), np.arange(40) % 5, resamples=20)
    frame = scores.to_frame()
    assert frame.columns.tolist() == ["value", "low", "high"]
    assert frame["value"].to_dict() == scores.values
    assert {name: (row["low"], row["high"]) for name, row in frame.iterrows()} == scores.ci95
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        scores.to_frame()


def test_worked_example():
    # Query 0 at angle 0; references at 10, 20, 30 … degrees; class of the query at ranks 1, 3 and 6.
    angles = np.radians([10, 20, 30, 40, 50, 60, 70])
    references = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = score(np.array([[1.0, 0.0]]), [1], references, [1, 0, 1, 0, 0, 1, 2], resamples=10)
    expected = {
        "acc": 1,
        "acc5": 2 / 5,
        "acc5_norm": 2 / 3,
        "hit5": 1,
        "r_precision": 2 / 3,
        "map_at_r": (1 + 2 / 3) / 3,
    }
    for name, value in expected.items():
        assert scores.values[name] == pytest.approx(value), name
    assert scores.ci95["acc"] == (0.0, 1.0)


def test_vote_ties_go_to_the_smaller_class():
    labels = np.array([[5, 2, 2, 5], [7, 7, 3, 3]])
    similarities = np.array([[0.5, 0.5, 0.1, 0.1], [0.4, 0.4, 0.4, 0.4]])
    assert weighted_vote(labels, similarities).tolist() == [2, 3]


def test_votes_survive_far_similarities():
    assert weighted_vote(np.array([[1, 0]]), np.array([[1e4, -1e4]])).tolist() == [1]


def test_class_means_in_chunks_are_the_same(embeddings, monkeypatch):
    from embedcore.retrieval import votes

    labels = np.random.default_rng(0).integers(0, 30, 200)
    rows = embeddings(200, 6)
    whole = nearest_mean(rows, labels, None, None)
    monkeypatch.setattr(votes, "_CLASSES", 4)
    monkeypatch.setattr(votes, "_QUERIES", 33)
    assert (nearest_mean(rows, labels, None, None) == whole).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(3), [0, 1]), r"query labels have shape \(2,\): each of the 3 embeddings needs one label"),
        ((np.eye(2), [0.0, 1.0]), "query labels are float64"),
        ((np.eye(2), [0, 1]), r"none of the 2 queries has a reference of its class besides itself"),
        ((np.eye(2), [0, 1], np.eye(2), [2, 3]), "no query can be scored"),
        ((np.eye(2), ["a", "b"], np.eye(2), [0, 1]), "both must be numbers or both text"),
        ((np.eye(2), [0, 0], np.eye(2)), "pass reference embeddings and reference labels together"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        score(*arguments)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("held", [metrics._HELD, 100])
def test_scores_across_two_models_are_those_by_hand(embeddings, monkeypatch, copies, held):
    monkeypatch.setattr(metrics, "_HELD", held)  # the queries of large classes are searched again
    labels = np.repeat([0, 1, 2, 3], [30, 10, 19, 1])
    queries, references = embeddings(60, 8), embeddings(60, 8, seed=5, centres=20)
    if copies:
        references[:20] = references[20:40]
        queries[5] = references[5]
    for others, across in ((labels, True), (labels[::-1].copy(), False)):
        rows, _, _ = by_hand(queries, labels, references, others, across)
        found = score_across(queries, labels, references, None if across else others)
        for metric in NEIGHBOUR_METRICS:
            np.testing.assert_allclose(found[metric], [float(row[metric]) for row in rows], atol=1e-12)


def test_scores_across_one_model_are_its_own(embeddings):
    labels, rows = np.repeat(np.arange(10), 6), embeddings(60, 8)
    expected, found = score(rows, labels), score_across(rows, labels, rows)
    for metric in NEIGHBOUR_METRICS:
        assert found[metric].tolist() == expected.per_query[metric].tolist()
