from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from embedcore.retrieval import race as module
from embedcore.retrieval.metrics import score
from embedcore.retrieval.race import Evidence, Race, Rules, evidence_of, stages

CLASSES = 400
ONE_EACH = np.ones(CLASSES, np.int64)


def evidence(right, sixteenth=None):
    """Evidence of a model that is as often right in every gallery, or in the smallest one as given."""
    right = np.asarray(right, np.float64)
    return Evidence(right, right, right, right if sixteenth is None else np.full(len(right), float(sixteenth)))


def at(acc, classes, seed=0):
    return evidence(np.random.default_rng([seed, round(1000 * acc)]).random(classes) < acc)


def test_stages_double_from_a_thirty_second_to_a_half():
    for classes in range(0, 5000, 37):
        sizes = stages(classes)
        assert all(later == 2 * size for size, later in itertools.pairwise(sizes))
        assert all(size >= 32 and classes / 32 <= size <= classes / 2 for size in sizes)
        assert not sizes or sizes[0] <= classes / 4
        assert bool(sizes) == (classes >= 128)


def test_the_worse_ones_leave_and_the_best_stays():
    models = {f"m{acc}": at(acc, 100) for acc in (0.1, 0.2, 0.3, 0.85, 0.9)}
    out = Race(ONE_EACH, Rules()).judge(models)
    assert set(out) == {"m0.1", "m0.2", "m0.3"}
    lost = out["m0.2"]
    assert (lost.classes, lost.against) == (100, "m0.9")
    assert lost.acc == pytest.approx(0.2, abs=0.1) and lost.acc_against == pytest.approx(0.9, abs=0.1)
    assert 0.2 / 0.9 < lost.at_most < 0.5


def test_equal_models_all_stay():
    race = Race(ONE_EACH, Rules())
    for classes in (32, 64, 100):
        assert race.judge({f"m{number}": at(0.5, classes) for number in range(5)}) == {}


def test_wealth_grows_from_stage_to_stage():
    """Evidence that is too little at each stage adds up."""
    better, worse = np.tile([1, 1, 1, 1], 32), np.tile([1, 1, 1, 0], 32)
    race = Race(ONE_EACH, Rules())
    outs = [set(race.judge({"a": evidence(better[:k]), "b": evidence(worse[:k])})) for k in (16, 24, 48)]
    assert outs == [set(), set(), {"b"}]


def test_the_best_three_stay():
    models = {f"m{acc}": at(acc, 100) for acc in (0.1, 0.15, 0.7, 0.8, 0.9)}
    assert set(Race(ONE_EACH, Rules(top=3)).judge(models)) == {"m0.1", "m0.15"}
    few = {name: models[name] for name in ("m0.1", "m0.8", "m0.9")}
    assert Race(ONE_EACH, Rules(top=3)).judge(few) == {}


def test_a_model_that_is_hardly_better_may_be_lost_with_a_margin():
    right = np.random.default_rng(0).random(100) < 0.6
    better = right.copy()
    better[np.flatnonzero(~right)[:1]] = True
    models = {"leader": evidence(right), "alike": evidence(better), "bad": at(0.05, 100)}
    assert set(Race(ONE_EACH, Rules()).judge(models)) == {"bad"}
    out = Race(ONE_EACH, Rules(margin=0.3)).judge({**models, "more": evidence(right), "same": evidence(right)})
    assert {"bad", "same"} <= set(out) and len(out) < 5
    assert out["same"].at_most <= 1.5


def test_a_model_whose_lead_is_forecast_to_end_removes_nobody():
    """It is nearly always right among few classes, and its accuracy falls fast with their number."""
    coarse, fine = np.zeros(100), np.zeros(100)
    coarse[:85] = fine[:50] = 1
    rng = np.random.default_rng(0)
    coarse, fine = rng.permutation(coarse), rng.permutation(fine)
    many = np.ones(100_000, np.int64)
    alike = {"coarse": evidence(coarse), "fine": evidence(fine)}
    assert set(Race(many, Rules()).judge(alike)) == {"fine"}
    falling = {"coarse": evidence(coarse, sixteenth=1.0), "fine": evidence(fine, sixteenth=0.5)}
    assert Race(many, Rules()).judge(falling) == {}


def test_a_model_that_is_never_right_leaves():
    assert set(Race(ONE_EACH, Rules()).judge({"good": at(0.9, 64), "never": evidence(np.zeros(64))})) == {"never"}


def test_classes_count_by_their_queries():
    """The better one by queries stays, although the other one is right in more classes."""
    sizes = np.where(np.arange(CLASSES) % 4 == 0, 9, 1)
    large = np.where(sizes == 9, 9.0, 0.0)
    small = np.where(sizes == 9, 0.0, 1.0)
    models = {"large": evidence(large[:200]), "small": evidence(small[:200])}
    assert set(Race(sizes, Rules()).judge(models)) == {"small"}


@pytest.mark.parametrize("top", [1, 3])
def test_bets_lose_a_model_that_is_among_the_best_at_most_as_often_as_promised(top, monkeypatch):
    """Models with exactly equal scores, drawn without replacement, and a forecast that never keeps any."""
    monkeypatch.setattr(module._Forecast, "ratios", lambda self, model, leaders, *_: np.zeros(len(leaders)))
    rng, races, models = np.random.default_rng(4), 150, 8
    values = np.zeros(CLASSES)
    values[: CLASSES // 2] = 1
    lost = 0
    for _ in range(races):
        right = rng.permuted(np.tile(values, (models, 1)), axis=1)
        race, racing = Race(ONE_EACH, Rules(top=top)), list(range(models))
        for classes in stages(CLASSES):
            out = race.judge({str(model): evidence(right[model, :classes]) for model in racing})
            racing = [model for model in racing if str(model) not in out]
        lost += models - len(racing)
    tolerated = stats.binom.isf(0.001, races, 0.05 / top) * models
    assert lost <= tolerated


def test_most_limits_of_models_that_left_hold():
    """They left because their forecasts were low: of plain 95 % limits 85 % hold here."""
    rng, classes = np.random.default_rng(6), 256
    means = rng.standard_normal((classes, 24))
    fields = [means[None] + noise * rng.standard_normal((2, classes, 24)) for noise in np.linspace(1.5, 3, 24)]
    fields = [field / np.linalg.norm(field, axis=2, keepdims=True) for field in fields]
    accs = [float(((field[0] @ field[1].T).argmax(axis=1) == np.arange(classes)).mean()) for field in fields]
    held = []
    for _ in range(30):
        drawn, racing = rng.permutation(classes), list(range(len(fields)))
        race = Race(np.ones(classes, int), Rules())
        for count in stages(classes):
            labels, is_query = np.tile(np.arange(count), 2), np.repeat([True, False], count)
            found = {
                str(model): evidence_of(
                    fields[model][:, drawn[:count]].reshape(-1, 24).astype(np.float32),
                    *(labels, is_query, ~is_query, count),
                    leave_one_out=False,
                )
                for model in racing
            }
            out = race.judge(found)
            held += [accs[int(model)] / accs[int(lost.against)] <= lost.at_most for model, lost in out.items()]
            racing = [model for model in racing if str(model) not in out]
    assert len(held) > 200 and np.mean(held) >= 0.95


def test_a_race_in_which_the_best_is_clearly_known_keeps_it():
    rng = np.random.default_rng(5)
    for _ in range(40):
        accs = rng.uniform(0.2, 0.7, 12)
        accs[0] = 0.75
        right = rng.random((12, CLASSES)) < accs[:, None]
        best = int(right.sum(axis=1).argmax())
        race, racing = Race(ONE_EACH, Rules()), list(range(12))
        for classes in stages(CLASSES):
            out = race.judge({str(model): evidence(right[model, :classes]) for model in racing})
            racing = [model for model in racing if str(model) not in out]
        assert best in racing and len(racing) < 12


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_the_evidence_has_the_scores(embeddings, leave_one_out):
    labels = np.repeat(np.arange(30), 4)
    rows = embeddings(120, 8, centres=30, spread=0.6)
    is_query = np.ones(120, bool) if leave_one_out else np.arange(120) % 2 == 0
    is_reference = is_query if leave_one_out else ~is_query
    found = evidence_of(rows, labels, is_query, is_reference, 30, leave_one_out=leave_one_out)
    sides = () if leave_one_out else (rows[is_reference], labels[is_reference])
    scores = score(rows[is_query], labels[is_query], *sides, resamples=1)
    assert found.whole.sum() / is_query.sum() == pytest.approx(scores.values["acc"])
    for smaller, larger in itertools.pairwise((found.sixteenth, found.half, found.whole)):
        assert (smaller >= larger - 1e-9).all() and smaller.sum() > larger.sum()
    first = labels < 10  # the classes up to the tenth are scored as if there were no others
    short = evidence_of(
        rows[first], labels[first], is_query[first], is_reference[first], 10, leave_one_out=leave_one_out
    )
    assert short.first == pytest.approx(found.first[:10])
