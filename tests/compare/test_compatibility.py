"""Advice on stored embeddings, against brute force and planted changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import orthogonal_procrustes

from embedcore.compare.compatibility import SHARES, SearchScores, compatibility, halves
from embedcore.compare.labelled_embeddings import ImageLabels
from embedcore.compare.labelled_retrieval import ScoreChange

CLASSES, EACH, DIM = 60, 6, 24
LABELS = np.repeat(np.arange(CLASSES), EACH)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLASSES, DIM))
    return unit(centres[LABELS] + spread * rng.standard_normal((len(LABELS), DIM)))


def rotation(dim=DIM, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def alone():
    every = np.ones(len(LABELS), dtype=bool)
    return ImageLabels(LABELS, every, every)


def two_sides():
    query = np.random.default_rng(3).random(len(LABELS)) < 0.4
    query[LABELS == 7] = True  # a class without references
    return ImageLabels(LABELS, query, ~query)


def brute_force(queries, references, images):
    """acc, acc5 and map_at_r of each query that has a reference of its class: [3, n_scored]."""
    columns = []
    for q in np.flatnonzero(images.is_query):
        kept = np.flatnonzero(images.is_reference & (np.arange(len(LABELS)) != q))
        near = kept[np.argsort(-(references[kept].astype(float) @ queries[q].astype(float)), kind="stable")]
        hit = LABELS[near] == LABELS[q]
        total = hit.sum()
        if total:
            precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
            columns.append((hit[0], hit[:5].sum() / 5, (precision * hit)[:total].sum() / total))
    return np.array(columns).T


@pytest.mark.parametrize("images", [alone(), two_sides()], ids=["alone", "two sides"])
def test_every_search_equals_brute_force(images):
    old, new = embeddings(), unit(embeddings() @ rotation() + 0.1 * embeddings(1))
    found = compatibility(old, new, images)
    base = brute_force(old, old, images)
    expected = {"old_old": base, "new_new": brute_force(new, new, images), "new_old": brute_force(new, old, images)}
    order = np.random.default_rng(0).permutation(np.flatnonzero(images.is_reference))
    for name, share in SHARES.items():
        mixed = old.copy()
        mixed[order[: round(share * len(order))]] = new[order[: round(share * len(order))]]
        expected[name] = brute_force(new, mixed, images)
    second, mapped = halves(LABELS), new.copy()
    for half in (second, ~second):
        matrix = orthogonal_procrustes(new[~half].astype(float), old[~half].astype(float))[0]
        mapped[half] = new[half] @ matrix
    expected["rotated"] = brute_force(mapped, old, images)
    assert found.searches.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose([*found.searches[name].scores.values()], values.mean(axis=1), atol=1e-12)
        for metric, column in zip(found.searches[name].changes, values - base, strict=False):
            assert found.searches[name].changes[metric].change == pytest.approx(column.mean(), abs=1e-12)
    assert found.distance == pytest.approx(np.linalg.norm(new.astype(float) - old, axis=1).mean())


def test_intervals_are_clustered_by_class():
    old, new = embeddings(), unit(embeddings() + 0.5 * embeddings(1))
    change = compatibility(old, new, alone()).searches["new_old"].changes["acc"]
    lost = (brute_force(new, old, alone()) - brute_force(old, old, alone()))[0]
    of_class = lost.reshape(CLASSES, EACH).mean(axis=1)  # classes of equal size: a t interval over class means
    low, high = stats.t.interval(0.95, CLASSES - 1, of_class.mean(), stats.sem(of_class))
    assert (change.low, change.high) == pytest.approx((low, high), abs=1e-6)


def test_tests_are_sign_flips_of_classes():
    old, new = embeddings(), unit(embeddings() + 0.35 * embeddings(1))
    changes = compatibility(old, new, alone()).searches["new_old"].changes
    steps = brute_force(new, old, alone()) - brute_force(old, old, alone())
    signs = np.random.default_rng(0).choice([-1, 1], (20_000, CLASSES))
    for metric, column in zip(changes, steps, strict=True):
        sums = column.reshape(CLASSES, EACH).sum(axis=1)
        flipped = np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9)
        assert changes[metric].p == pytest.approx(flipped, abs=0.015), metric
    assert min(change.p for change in changes.values()) < 0.5


def test_equal_embeddings_are_kept():
    found = compatibility(embeddings(), embeddings(), two_sides())
    assert (found.advice, found.certain, found.equal, found.distance) == ("keep", True, True, 0.0)
    assert found.searches["rotated"].scores == found.searches["old_old"].scores
    assert set(found.searches["new_old"].changes["acc"][:3]) == {0.0}


def test_rounding_is_kept():
    noise = np.random.default_rng(2).standard_normal((len(LABELS), DIM))
    found = compatibility(embeddings(), unit(embeddings() + 1e-6 * noise), alone())
    assert (found.advice, found.certain, found.equal) == ("keep", True, False)


@pytest.mark.parametrize("images", [alone(), two_sides()], ids=["alone", "two sides"])
def test_a_planted_rotation_is_repaired_to_within_rounding(images):
    old = embeddings()
    new = unit(old @ rotation())
    found = compatibility(old, new, images)
    assert found.advice == "rotate"
    assert found.searches["new_old"].scores["acc"] < 0.2
    assert found.searches["rotated"].scores == pytest.approx(found.searches["old_old"].scores, abs=1e-12)
    np.testing.assert_allclose(new @ found.matrix, old, atol=1e-6)


def test_another_model_is_to_be_embedded_again():
    found = compatibility(embeddings(), embeddings(5), alone())
    assert (found.advice, found.certain, found.matrix) == ("re-embed", True, None)
    assert found.searches["rotated"].changes["acc"].high < -0.1
    wider = np.concatenate([embeddings(), np.zeros((len(LABELS), 4), np.float32)], axis=1)
    found = compatibility(embeddings(), wider, alone())
    assert (found.advice, found.certain, found.distance) == ("re-embed", True, None)
    assert found.searches.keys() == {"old_old", "new_new"}


def test_the_interval_decides_not_the_estimate():
    old, new = embeddings(), unit(embeddings() + 0.3 * embeddings(1))
    change = compatibility(old, new, alone()).searches["new_old"].changes["acc"]
    assert change.low < change.change < 0
    found = {by: compatibility(old, new, alone(), tolerances={"acc": by - change.low}) for by in (1e-6, -1e-6)}
    assert [each.advice for each in found.values()] == ["keep", "re-embed"]
    assert not found[-1e-6].certain  # a loss above the tolerance is neither shown nor excluded


@pytest.mark.parametrize(
    ("low", "high", "within", "beyond"),
    [(-0.004, 0.1, True, ""), (-0.02, -0.001, False, ""), (-0.02, -0.006, False, "acc"), (0.0, 0.0, True, "")],
)
def test_a_loss_is_excluded_shown_or_neither(low, high, within, beyond):
    scores = SearchScores({}, {"acc": ScoreChange((low + high) / 2, low, high, 1.0), "acc5": ScoreChange(0, 0, 0, 1.0)})
    tolerances = {"acc": 0.005, "acc5": 0.01}
    assert (scores.within(tolerances), scores.beyond(tolerances)) == (within, beyond)


@pytest.mark.parametrize("sizes", [[1, 1], [80, 5, 5], [1] * 9, [2, 100, 1]])
@pytest.mark.parametrize("seed", range(4))
def test_halves_are_whole_classes_and_never_empty(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    second = halves(labels, seed)
    assert 0 < second.sum() < len(labels)
    assert all(len(set(second[labels == label])) == 1 for label in labels)
    assert abs(second.sum() - len(labels) / 2) <= max(sizes)
