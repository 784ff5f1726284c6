"""What a rule of choice costs, on runs whose answer is counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import synthetic_runs as made
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from embedcore.compare.regret import BANDS, Rule, candidates, ranks, regrets, rules_of, sample_rule
from embedcore.errors import UsageError
from embedcore.results.class_table import class_table

CLASSES = np.repeat(np.arange(24), 5)
MODELS = {f"m{n}.x": 0.2 + 0.05 * n for n in range(12)}
PARAMS = [3, 5, 8, 9, 12, 20, 25, 28, 50, 60, 200, None]


def a_run(**changes):
    """Twelve models with different accuracies; `changes`: model → fields that replace those of its result."""
    infos = [
        made.result(model, CLASSES, made.hits_of(model, CLASSES, acc), params_m=size, **changes.get(model, {}))
        for (model, acc), size in zip(MODELS.items(), PARAMS, strict=True)
    ]
    return made.as_run(made.saved(infos, CLASSES))


def regrets_of(run, *rules):
    return regrets(run.results, class_table(run.results, run.dataset), rules)


@pytest.mark.parametrize("seed", range(5))
def test_a_rule_is_counted_by_hand(seed):
    rng = np.random.default_rng(seed)
    run = a_run()
    acc = {result.model: result.scores["acc"] for result in run.results}
    chosen = rng.permutation([*MODELS])[:9].tolist()
    values = dict(zip(chosen, rng.integers(0, 6, 9).astype(float), strict=True))  # with ties
    found = regrets_of(run, Rule("r", "r", values | {"unknown.y": 99.0}))
    (regret,) = found.rules
    picked = [model for model in MODELS if model in values and values[model] == max(values.values())]
    assert regret.picked == tuple(picked) and regret.models == 9
    assert regret.acc == pytest.approx(np.mean([acc[model] for model in picked]))
    assert regret.best_acc == pytest.approx(max(acc[model] for model in chosen)) == pytest.approx(acc[regret.best])
    assert regret.points == pytest.approx(regret.best_acc - regret.acc)
    assert 0 <= regret.low <= regret.points <= regret.high <= 1
    assert found.models == 12 and found.best_acc == pytest.approx(max(acc.values())) and found.classes == 24
    ordered = [model for model in MODELS if model in values]
    expected = stats.kendalltau([values[m] for m in ordered], [acc[m] for m in ordered]).statistic
    assert regret.tau == pytest.approx(expected)


def test_agreement_within_sizes_is_scipys():
    run = a_run()
    acc = {result.model: result.scores["acc"] for result in run.results}
    values = {model: float(n * 7919 % 12) for n, model in enumerate(MODELS)}
    (regret,) = regrets_of(run, Rule("r", "r", values)).rules
    sizes = dict(zip(MODELS, PARAMS, strict=True))
    for band, (title, least, most) in zip(regret.bands, BANDS, strict=True):
        inside = [model for model, size in sizes.items() if size is not None and least <= size < most]
        assert (band.title, band.models) == (title, len(inside))
        if len(inside) < 3:
            assert band.tau is None
        else:
            expected = stats.kendalltau([values[m] for m in inside], [acc[m] for m in inside]).statistic
            assert band.tau == pytest.approx(expected)
    assert [band.models for band in regret.bands] == [4, 4, 2, 1]


def test_models_that_depart_most_come_first():
    run = a_run()
    acc = {result.model: result.scores["acc"] for result in run.results}
    values = {model: float(n) for n, model in enumerate(reversed(MODELS))}
    (regret,) = regrets_of(run, Rule("r", "r", values)).rules
    by_rule, by_acc = (
        dict(zip(MODELS, stats.rankdata([-of[m] for m in MODELS], "min"), strict=True)) for of in (values, acc)
    )
    moved = sorted((abs(by_rule[m] - by_acc[m]) for m in MODELS), reverse=True)[:5]
    assert [abs(each.rank - each.rank_by_acc) for each in regret.departures] == moved
    for each in regret.departures:
        assert (each.rank, each.rank_by_acc) == (by_rule[each.model], by_acc[each.model])
        assert (each.value, each.acc) == (values[each.model], pytest.approx(acc[each.model]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_ranks_are_scipys(scores):
    assert ranks(np.array(scores, dtype=float)).tolist() == stats.rankdata(-np.array(scores), "min").tolist()


def test_intervals_hold_for_all_rules_at_once():
    run = a_run()
    rules = [Rule(model, model, {model: 1.0} | dict.fromkeys(MODELS.keys() - {model}, 0.0)) for model in MODELS]
    alone, all_of_them = regrets_of(run, rules[0]).rules[0], regrets_of(run, *rules).rules[0]
    assert alone.points == all_of_them.points
    assert all_of_them.high - all_of_them.low > alone.high - alone.low


def test_rules_are_published_accuracy_size_and_other_scores():
    scores = {"acc": 0.5, "acc5": 0.4, "knn20": 0.6}
    run = a_run(**{"m0.x": {"scores": scores}, "m1.x": {"scores": scores | {"map_at_r": 0.1}}})
    published = {"ImageNet": dict.fromkeys(["m1.x", "m2.x", "other.y"], 80.0), "ReaL": {"m1.x": 85.0}}
    rules = rules_of(run.results, published)
    assert [(rule.name, rule.phrase, len(rule.values), rule.is_score) for rule in rules] == [
        ("ImageNet", "published ImageNet top-1", 2, False),
        ("size", "size", 11, False),
        ("acc5", "acc5", 12, True),
        ("knn20", "knn20", 2, True),
    ]


@pytest.mark.parametrize(
    "weights",
    [
        {"source": "random", "id": "seed:0"},
        {"source": "own:best.pth", "id": "sha256:1"},
        {"source": "folder", "id": "sha256:1", "file": "mine.safetensors"},
    ],
)
def test_published_accuracy_is_not_that_of_other_weights(weights):
    run = a_run(**{"m1.x": {"weights": weights}})
    (rule, *_) = rules_of(run.results, {"ImageNet": dict.fromkeys(MODELS, 80.0)})
    assert rule.values.keys() == MODELS.keys() - {"m1.x"}


def test_random_weights_are_candidates_only_without_others():
    random = {"weights": {"source": "random", "id": "seed:0"}}
    left = candidates(a_run(**{"m3.x": random}).results)
    assert {result.model for result in left} == MODELS.keys() - {"m3.x"}
    assert len(candidates(a_run(**dict.fromkeys(MODELS, random)).results)) == 12


def test_picking_by_acc_costs_points_of_another_score():
    best = max(a_run().results, key=lambda result: result.scores["acc"])
    knn20 = {
        result.model: {"scores": dict(result.scores) | {"knn20": number / 20}}
        for number, result in enumerate(a_run().results)
    }
    found = regrets_of(run := a_run(**knn20), *rules_of(run.results, {}))
    of_best = knn20[best.model]["scores"]["knn20"]
    assert found.of("knn20").reverse == pytest.approx(11 / 20 - of_best) and found.of("size").reverse is None
    assert found.of("nonsense") is None


def a_sample(run, models, classes, names, fingerprint="beef"):
    infos = [made.result(m, classes, made.hits_of(m, classes, 0.5)) for m in models]
    return made.as_run(made.saved(infos, classes, dataset={"class_names": names, "fingerprint": fingerprint}), "s.json")


def test_a_sample_is_a_rule():
    names = [f"c{n}" for n in range(24)]
    infos = [made.result(m, CLASSES, made.hits_of(m, CLASSES, acc)) for m, acc in MODELS.items()]
    run = made.as_run(made.saved(infos, CLASSES, dataset={"class_names": names}))
    few = np.repeat(np.arange(12), 5)
    rule = sample_rule(run, a_sample(run, [*MODELS][:6], few, names[:12]))
    assert rule.phrase == "a sample of 60 of 120 queries" and [*rule.values] == [*MODELS][:6]
    found = regrets_of(run, rule).of("sample")
    assert found.models == 6 and found.best == max([*MODELS][:6], key=lambda m: dict(_accs(run))[m])
    with pytest.raises(UsageError, match=r"s\.json: not a sample of run\.json: photos has no class 'other'"):
        sample_rule(run, a_sample(run, [*MODELS], few, [*names[:11], "other"]))
    with pytest.raises(UsageError, match="it has 1 of the models"):
        sample_rule(run, a_sample(run, ["m1.x", "another.y"], few, names[:12]))


def _accs(run):
    return [(result.model, result.scores["acc"]) for result in run.results]


def test_a_rule_that_orders_too_few_is_left_out():
    run = a_run()
    one, two = Rule("one", "one", {"m0.x": 1.0}), Rule("two", "two", {"m0.x": 1.0, "m1.x": 0.0})
    assert [regret.rule.name for regret in regrets_of(run, one, two).rules] == ["two"]
    assert regrets_of(run, one).rules == regrets_of(run).rules == ()


def test_bands_cover_all_sizes_without_overlap():
    assert BANDS[0][1] == 0 and BANDS[-1][2] == np.inf
    assert all(before[2] == after[1] for before, after in itertools.pairwise(BANDS))
