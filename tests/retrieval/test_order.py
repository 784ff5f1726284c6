from __future__ import annotations

import itertools

import honestboard
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from embedcore.retrieval import order as module
from embedcore.retrieval.order import Order, order
from embedcore.retrieval.resampling import class_counts


def by_hand(sums, sizes, level=0.95, resamples=200):
    """The rank intervals, one pair and one resample at a time: of Mogstad et al., as their csranks does it (all ordered
    pairs, those not decided yet in each step), with resampled classes for their normal draws."""
    m, classes = sums.shape
    means = sums.sum(axis=1) / sizes.sum()
    draws = [(sums @ n) / (sizes @ n) for counts in class_counts(classes, resamples, 0) for n in counts]
    left_out = [(sums.sum(axis=1) - sums[:, c]) / (sizes.sum() - sizes[c]) for c in range(classes)]

    def error(i, j):
        gaps = [(without[i] - without[j]) - (means[i] - means[j]) for without in left_out]
        by_jackknife = np.sqrt((classes - 1) / classes * sum(gap**2 for gap in gaps))
        return max(by_jackknife if by_jackknife > 1e-9 else 0, abs(means[i] - means[j]) / classes)

    errors = {(i, j): error(i, j) for i, j in itertools.permutations(range(m), 2)}
    pairs = {pair for pair, e in errors.items() if e > 0}
    better: set[tuple[int, int]] = set()
    while pairs - better:
        largest = [
            max(((draw[i] - draw[j]) - (means[i] - means[j])) / errors[i, j] for i, j in pairs - better)
            for draw in draws
        ]
        z = np.quantile(largest, level, method="higher") * np.sqrt(classes / (classes - 1))
        tail = stats.norm.sf(max(z, stats.norm.ppf((1 + level) / 2)))
        limit = stats.t.isf(tail, sizes.sum() ** 2 / (sizes**2).sum() - 1)
        found = {(i, j) for i, j in pairs - better if (means[i] - means[j]) / errors[i, j] > limit}
        if not found:
            break
        better |= found
    return [
        [1 + sum((j, i) in better for j in range(m)), m - sum((i, j) in better for j in range(m))] for i in range(m)
    ]


def board(seed, models=7, classes=40, largest=5, spread=1.0):
    """Sums and sizes of classes of unequal size, easy or hard for all; models in equal steps of quality."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, classes)
    quality = (
        spread * np.linspace(0, 1, models)[:, None] + rng.normal(0, 1, classes) + rng.normal(0, 0.4, (models, classes))
    )
    return rng.binomial(sizes, special.ndtr(quality)), sizes


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_equals_the_method_done_by_hand(seed, spread):
    sums, sizes = board(seed, spread=spread)
    shuffled = np.random.default_rng(seed).permutation(len(sums))
    found = order(sums[shuffled], sizes, resamples=200)
    assert found.ranks()[:, 1:].tolist() == by_hand(sums[shuffled], sizes)
    assert found.means == pytest.approx(sums[shuffled].sum(axis=1) / sizes.sum())


def test_more_models_than_are_compared_at_once_and_more_classes_than_are_held(monkeypatch):
    sums, sizes = board(3, models=30, classes=90, spread=2.0)
    whole = order(sums, sizes, resamples=100)
    monkeypatch.setattr(module, "_BLOCK", 4)
    monkeypatch.setattr(module, "_CLASSES", 7)
    monkeypatch.setattr(module, "_EXACT", 1)
    parts = order(sums, sizes, resamples=100)
    assert (whole.better == parts.better).all()
    assert (whole.p_best == parts.p_best).all()
    assert whole.better.any() and not whole.better[np.triu_indices(30)].all()


@given(seed=st.integers(0, 2**32 - 1), models=st.integers(1, 50), left_out=st.floats(0, 1), alike=st.floats(0, 5))
@settings(max_examples=50, deadline=None)
def test_the_largest_ratios_are_those_of_all_pairs_to_the_last_bit(seed, models, left_out, alike):
    """Also where some models are nearly the same, whose differences have a large scale."""
    rng = np.random.default_rng(seed)
    deviations = rng.normal(size=(models, 20)).astype(np.float32)
    scale = np.exp(alike * rng.normal(size=(models, models))).astype(np.float32)
    scale = np.triu(scale * (rng.random((models, models)) >= left_out), 1)
    ratios = (deviations[:, None] - deviations) * scale[..., None]
    forward, backward = module._largest(deviations, scale)
    assert (forward == ratios.max(axis=(0, 1))).all()
    assert (backward == -ratios.min(axis=(0, 1))).all()


def test_the_error_is_the_jackknife_of_the_difference():
    """Against scipy's standard error where all classes are of one size: then it is that of a mean of class means."""
    rng = np.random.default_rng(0)
    sizes = np.full(50, 4)
    sums = rng.binomial(4, [[0.3], [0.6]], (2, 50))
    expected = stats.sem((sums[0] - sums[1]) / 4)
    assert module._errors(sums, sizes)[0, 1] == pytest.approx(expected)


def test_the_set_of_the_best_is_that_of_multiple_comparisons_with_the_best():
    """honestboard's confidence set of the best, all comparisons at once (of which ours is the stepwise form), and its
    share of resamples in which a system is the best."""
    for seed in range(5):
        sums, sizes = board(seed, models=8, classes=120, largest=1, spread=1.5)
        theirs = honestboard.Board([str(i) for i in range(8)], sums)
        found = order(sums, sizes, resamples=4000)
        best = {str(i) for i, (_, low, _) in enumerate(found.ranks().tolist()) if low == 1}
        one_step = set(theirs.confidence_set_best(method="simultaneous")["members"])
        assert best <= one_step and len(one_step - best) <= 1
        p_best = {row["name"]: row["p_best"] for row in theirs.rank_summary()}
        assert found.p_best == pytest.approx([p_best[str(i)] for i in range(8)], abs=0.04)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), models=st.integers(1, 6), classes=st.integers(1, 12))
def test_any_board_has_sane_ranks(data, models, classes):
    sizes = np.array(data.draw(st.lists(st.integers(1, 4), min_size=classes, max_size=classes)))
    sums = np.array([[data.draw(st.integers(0, int(n))) for n in sizes] for _ in range(models)])
    found = order(sums, sizes, resamples=50)
    ranks = found.ranks()
    assert ranks[:, 0].tolist() == stats.rankdata(-found.means, method="min").astype(int).tolist()
    assert (ranks[:, 1] <= ranks[:, 0]).all() and (ranks[:, 0] <= ranks[:, 2]).all()
    assert ranks.min() >= 1 and ranks.max() <= models
    assert found.p_best.sum() == pytest.approx(1)
    assert not (found.better & found.better.T).any()
    assert found.classes_needed > 0
    again = order(sums[::-1], sizes, resamples=50)
    assert sorted(again.ranks().tolist()) == sorted(ranks.tolist())
    if models > 1:
        few = found.ranks([0, models - 1])
        assert few[:, 2].max() <= 2
        assert (few[:, 2] - few[:, 1] <= ranks[[0, -1], 2] - ranks[[0, -1], 1]).all()


def test_identical_and_perfect_models_share_their_rank():
    sizes = np.full(30, 3)
    perfect, nothing = np.full(30, 3), np.zeros(30, dtype=int)
    found = order(np.stack([nothing, perfect, perfect]), sizes)
    assert found.ranks().tolist() == [[3, 3, 3], [1, 1, 2], [1, 1, 2]]
    assert found.p_best.tolist() == [0, 0.5, 0.5]
    assert found.classes_needed == np.inf
    same = order(np.stack([perfect - 1] * 4), sizes)
    assert same.ranks().tolist() == [[1, 1, 4]] * 4
    assert same.p_best.tolist() == [0.25] * 4


def test_nothing_is_significant_with_one_class_and_little_with_few():
    one = order(np.array([[0], [9], [9]]), np.array([9]))
    assert one.ranks().tolist() == [[3, 1, 3], [1, 1, 3], [1, 1, 3]]
    assert one.p_best.tolist() == [0, 0.5, 0.5]
    for classes, worst in ((3, 2), (8, 1)):
        sums = np.array([[9, 8, 9, 9, 9, 8, 9, 9], [1, 2, 1, 1, 2, 1, 1, 1]])[:, :classes]
        assert order(sums, np.full(classes, 9)).ranks()[:, 2].tolist() == [worst, 2]


def test_an_estimate_beyond_sense_is_none():
    sizes = np.array([800, *[10] * 20])
    uneven = order(np.stack([sizes // 2, sizes // 2 - np.arange(21) % 2]), sizes)
    assert uneven.classes_needed == np.inf
    rng = np.random.default_rng(0)
    hardly = rng.integers(0, 50, (2, 1000))
    hardly[1, 0] += hardly[0].sum() - hardly[1].sum() + 1
    assert order(hardly, np.full(1000, 10_000), resamples=100).classes_needed == np.inf


def test_with_the_classes_needed_the_power_is_80_percent():
    rng = np.random.default_rng(1)
    truth = special.ndtri([0.6, 0.52])[:, None]

    def drawn(classes):
        ease = rng.normal(0, 1, classes) * 0.5
        return rng.binomial(4, special.ndtr(truth + ease + rng.normal(0, 0.3, (2, classes)))), np.full(classes, 4)

    needed = round(order(*drawn(40_000), resamples=100).classes_needed)
    reported = [order(*drawn(needed), resamples=100, seed=seed).better[0, 1] for seed in range(200)]
    assert 50 < needed < 400
    assert 0.7 < np.mean(reported) < 0.9


def test_the_unit_is_that_of_the_means_alone_and_the_seed_decides():
    sums, sizes = board(0)
    fifths = order(sums, sizes, unit=0.2)
    assert fifths.means == pytest.approx(0.2 * order(sums, sizes).means)
    assert (fifths.better == order(sums, sizes).better).all()
    assert (order(sums, sizes, seed=1).p_best != fifths.p_best).any()


def test_groups_hold_together():
    better = np.zeros((4, 4), dtype=bool)
    better[0, 2] = better[0, 3] = better[1, 3] = True
    found = Order(np.array([0.9, 0.8, 0.7, 0.7]), better, np.full(4, 0.25), 10.0)
    assert found.ranks().tolist() == [[1, 1, 2], [2, 1, 3], [3, 2, 4], [3, 3, 4]]
    assert found.ranks([1, 2, 3]).tolist() == [[1, 1, 2], [2, 1, 3], [2, 2, 3]]
