from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic_runs as made
from scipy import stats

from embedcore.errors import UsageError
from embedcore.results.leaderboard import build
from embedcore.results.ranking import (
    RANKED,
    ModelRank,
    NotRanked,
    agree,
    rank_if_possible,
    rank_models,
    ranking_block,
)
from embedcore.results.verdicts import pack_classes, pack_verdicts, unpack_outcomes, unpack_verdicts
from embedcore.retrieval.order import order
from embedcore.retrieval.outcomes import PROBES

CLASSES = np.repeat(np.arange(30), 4)
ACCS = {"a.x": 0.9, "b.x": 0.6, "c.x": 0.58, "d.x": 0.1}


def results_of(classes=CLASSES, seed=0, **accs):
    return [made.result(m, classes, made.hits_of(m, classes, acc, seed)) for m, acc in (accs or ACCS).items()]


def run_of(results, classes=CLASSES, **changes):
    return made.as_run(made.saved(results, classes, **changes))


def test_ranks_equal_those_of_the_scores_and_of_the_order():
    run = run_of(results_of())
    rankings = rank_models(run.results, run.dataset)
    for metric, ranking in rankings.items():
        scores = [result.scores[metric] for result in run.results]
        assert ranking.order.means == pytest.approx(scores)
        model_ranks = ranking.model_ranks()
        assert [model_ranks[m].rank for m in ACCS] == stats.rankdata(-np.array(scores), "min").astype(int).tolist()
    leader, second, third, last = (rankings["acc"].model_ranks()[model] for model in ACCS)
    assert leader == ModelRank("a.x", 1, (1, 1), leader.p_best, False) and leader.p_best > 0.99
    assert second.rank95 == third.rank95 == (2, 3) and not second.tied_with_leader
    assert last.rank95 == (4, 4) and last.p_best == 0
    # Among the two in the middle the better one leads, and not surely.
    among = rankings["acc"].model_ranks({"b.x", "c.x"})
    assert {s.rank95 for s in among.values()} == {(1, 2)} and all(s.tied_with_leader for s in among.values())


def test_sums_by_class_are_those_of_the_verdicts():
    rng = np.random.default_rng(0)
    classes = rng.permutation(CLASSES * 7 + 3)  # neither sorted nor without gaps
    results = results_of(classes)
    run = run_of(results, classes)
    found = rank_models(run.results, run.dataset, ("acc",))["acc"]
    first = [unpack_verdicts(result["verdicts"]).first for result in results]
    sums = np.array([[row[classes == c].sum() for c in np.unique(classes)] for row in first])
    expected = order(sums, np.full(30, 4))
    assert (found.order.better == expected.better).all() and (found.order.p_best == expected.p_best).all()


def test_queries_without_a_reference_are_left_out():
    run = run_of(results_of())
    usual = rank_models(run.results, run.dataset)["acc"]
    # The same queries and 10 of two further classes without a reference, which scores do not count.
    more = np.concatenate([[50, 50, 50, 40, 40], CLASSES, [40] * 5])
    longer = []
    for result in results_of():
        hits, first = unpack_verdicts(result["verdicts"])
        hits, first = np.pad(hits, 5), np.pad(first, 5)
        longer.append(result | {"verdicts": pack_verdicts(hits, first)})
    lone = {"lone_queries": 10, "lone_classes": [40, 50]}
    found = rank_models(run_of(longer, more).results, run_of(longer, more, dataset=lone).dataset)["acc"]
    assert found.classes == 30 and found.order.means == pytest.approx(usual.order.means)
    assert (found.order.better == usual.order.better).all() and (found.order.p_best == usual.order.p_best).all()


@pytest.mark.parametrize(
    ("dataset", "change", "why"),
    [
        ({"query_classes": None}, {}, "the classes of the queries are not saved"),
        ({"query_classes": "!"}, {}, "query classes cannot be unpacked: .*"),
        ({"lone_queries": 3}, {}, "the queries without a reference of their class are not saved"),
        ({"lone_queries": 4, "lone_classes": ["a", None]}, {}, "the queries without a reference.*"),
        ({"lone_queries": 120, "lone_classes": list(range(30))}, {}, "no query has a reference of its class"),
        ({"query_classes": pack_classes(CLASSES[:-1])}, {}, "a.x has verdicts on 120 queries, and the dataset has 119"),
        ({}, {"verdicts": None}, "b.x has no verdicts"),
        ({}, {"verdicts": "!!"}, "b.x: verdicts cannot be unpacked: .*"),
        ({}, {"scores": {"acc": 0.5, "acc5": 0.1}}, "b.x: its verdicts do not match its acc"),
    ],
)
def test_missing_data_is_reported_and_nothing_is_ranked(dataset, change, why):
    results = results_of()
    results[1] |= change
    run = run_of(results, dataset=dataset)
    with pytest.raises(NotRanked, match=f"^{why}$"):
        rank_models(run.results, run.dataset)
    rankings = rank_if_possible(run.results, run.dataset)
    assert not rankings.by and rankings.why
    assert ranking_block({"f00d": rankings}) == []
    assert [row.model_rank for row in build(run.results, dataset=run.dataset, rankings=rankings).by_acc] == [None] * 4


def test_the_block_is_read_back_and_recomputed_if_missing():
    run = run_of(results_of())
    block = ranking_block(run.rankings())
    assert [entry["model"] for entry in block] == sorted(ACCS, key=lambda m: -dict(scores_of(run))[m])
    assert list(block[0]) == ["model", "rank", "rank95", "p_best", "tied_with_leader"]
    again = run_of(results_of(), ranking=block)
    assert [model_rank.model for model_rank in again.ranking] == [entry["model"] for entry in block]
    assert again.ranking == tuple(rank_models(run.results, run.dataset)["acc"].model_ranks()[e["model"]] for e in block)
    assert run.ranking == ()


def scores_of(run):
    return [(result.model, result.scores["acc"]) for result in run.results]


@pytest.mark.parametrize(
    "damaged",
    [
        "text",
        {"a": 1},
        [3],
        [{"model": "a.x"}],
        [{"model": "a.x", "rank": 0, "rank95": [1, 2], "p_best": 0.5, "tied_with_leader": True}],
        [{"model": "a.x", "rank": 1, "rank95": [1], "p_best": 0.5, "tied_with_leader": True}],
        [{"model": "a.x", "rank": 1, "rank95": [1, 2], "p_best": 1.5, "tied_with_leader": True}],
    ],
)
def test_a_damaged_block_is_one_line(damaged):
    with pytest.raises(UsageError, match=r"^run.json: 'ranking' of the embedcore block: [^\n]+$"):
        run_of(results_of(), ranking=damaged)


def test_an_entry_may_have_more_fields_and_the_block_may_be_empty():
    entry = {"model": "a.x", "rank": 1, "rank95": [1, 2], "p_best": 0.5, "tied_with_leader": True, "newer": [1]}
    assert run_of(results_of(), ranking=[entry]).ranking[0].rank95 == (1, 2)
    assert run_of(results_of(), ranking=None).ranking == ()


def test_several_datasets_of_one_run_are_ranked_each():
    other = np.repeat(np.arange(20), 3)
    blocks = [made.saved([], CLASSES)["embedcore"]["dataset"]]
    blocks.append(made.saved([], other, dataset={"fingerprint": "beef", "name": "b"})["embedcore"]["dataset"])
    results = [r | {"dataset": "f00d"} for r in results_of()]
    results += [r | {"dataset": "beef"} for r in results_of(other, **{"a.x": 0.2, "e.x": 0.9})]
    data = made.saved(results, CLASSES, datasets=blocks)
    run = made.as_run(data)
    assert [(d["name"], [r.model for r in found]) for d, found in run.by_dataset()] == [
        ("photos", list(ACCS)),
        ("b", ["a.x", "e.x"]),
    ]
    block = ranking_block(run.rankings())
    assert [(e["model"], e["dataset"]) for e in block[-2:]] == [("e.x", "beef"), ("a.x", "beef")]
    data["embedcore"]["ranking"] = block
    assert [model_rank.model for model_rank in made.as_run(data).ranking] == [e["model"] for e in block[:4]]


def test_rows_of_families_stand_among_their_family():
    results = [r | {"family": "one" if r["model"] in ("b.x", "c.x") else "two"} for r in results_of()]
    run = run_of(results)
    board = build(run.results, dataset=run.dataset, rankings=rank_if_possible(run.results, run.dataset))
    one = next(group for group in board.groups if group.slug == "one")
    assert [row.model_rank.rank95 for row in one.rows] == [(1, 2), (1, 2)]
    assert [row.model_rank.rank95 for row in board.by_acc] == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert all(
        row.model_rank.rank95[0] <= row.rank <= row.model_rank.rank95[1] for row in (*board.by_acc, *board.by_acc5)
    )


def test_agreement_is_kendalls_tau_and_mean_ranks_lie_in_their_intervals():
    other = np.repeat(np.arange(25), 5)
    here, there = (
        run_of(results_of()),
        run_of(results_of(other, seed=5, **{"a.x": 0.5, "b.x": 0.9, "d.x": 0.3, "z.x": 0.7}), other),
    )
    found = agree([(here.dataset, here.results), (there.dataset, there.results)])
    common = ["a.x", "b.x", "d.x"]
    scores = [[dict(scores_of(run))[model] for model in common] for run in (here, there)]
    assert found.taus == {(0, 1): pytest.approx(stats.kendalltau(*scores).statistic)}
    assert [mean.model for mean in found.means] == ["b.x", "a.x", "d.x"] or found.means[0].mean == found.means[1].mean
    for mean in found.means:
        ranks = [int(stats.rankdata([-s for s in side], "min")[common.index(mean.model)]) for side in scores]
        assert mean.ranks == tuple(ranks) and mean.mean == sum(ranks) / 2
        assert mean.interval[0] <= mean.mean <= mean.interval[1]
    # Level 97.5 % on each of two datasets gives 95 % for both.
    levels = [
        rank_models(
            sorted((r for r in run.results if r.model in common), key=lambda r: r.model), run.dataset, ("acc",), 0.975
        )["acc"].model_ranks()
        for run in (here, there)
    ]
    assert {m.model: m.interval for m in found.means} == {
        model: tuple(sum(level[model].rank95[end] for level in levels) / 2 for end in (0, 1)) for model in common
    }


def test_datasets_without_an_agreement():
    here, there = run_of(results_of()), run_of(results_of(**{"z.x": 0.5}))
    assert agree([(here.dataset, here.results), (there.dataset, there.results)]).means == ()
    one = results_of(**{"a.x": 0.5})
    same = run_of([one[0], one[0] | {"model": "b.x"}])
    assert agree([(same.dataset, same.results)] * 2).taus == {(0, 1): None}
    assert json.dumps(ranking_block(same.rankings()))


def probed(tries=10, judged=None):
    """Results whose few_shot_1 is in another order than acc."""
    rng = np.random.default_rng(3)
    values = {"a.x": 0.1, "b.x": 0.9, "c.x": 0.6, "d.x": 0.5}
    return [
        made.probed(info, "few_shot_1", rng.binomial(tries, values[model], len(CLASSES)), tries, judged)
        for info, model in zip(results_of(), ACCS, strict=True)
    ]


def test_probes_are_ranked_by_the_queries_that_they_judge():
    judged = CLASSES >= 6
    run = run_of(probed(judged=judged))
    found = rank_models(run.results, run.dataset, ("acc", "few_shot_1"))
    usual = rank_models(run.results, run.dataset, ("acc",))["acc"]
    assert (found["acc"].order.better == usual.order.better).all() and found["acc"].classes == 30
    ranking = found["few_shot_1"]
    assert ranking.classes == 24
    assert ranking.order.means == pytest.approx([result.scores["few_shot_1"] for result in run.results])
    assert [ranking.model_ranks()[model].rank for model in ACCS] == [4, 1, 2, 3]
    sums = [
        np.bincount(CLASSES[judged] - 6, weights=unpack_outcomes(result.probe_verdicts["few_shot_1"]).right[judged])
        for result in run.results
    ]
    expected = order(np.array(sums).astype(int), np.full(24, 4))
    assert (ranking.order.better == expected.better).all() and (ranking.order.p_best == expected.p_best).all()
    places = {entry["model"]: entry["probes"]["few_shot_1"]["rank"] for entry in ranking_block(run.rankings())}
    assert [places[model] for model in ACCS] == [4, 1, 2, 3]


def test_every_score_with_outcomes_can_be_ranked():
    run = run_of([made.probed(info, "probe_ridge", CLASSES % 2) for info in results_of()])
    for metric in ("acc", "acc5", "hit5", "probe_ridge"):
        ranking = rank_models(run.results, run.dataset, (metric,))[metric]
        assert ranking.order.means == pytest.approx([result.scores[metric] for result in run.results])
    assert set(RANKED) == {"acc", "acc5", "hit5", *PROBES, "view_recall", "view_recall5"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"probe_verdicts": {}}, r"b\.x has no few_shot_1: --embed-probe / probe=True measures it if the images .*"),
        ({"probe_verdicts": {"few_shot_1": "!"}}, r"b\.x: outcomes cannot be unpacked: .*"),
        (made.probed({"scores": {}}, "few_shot_1", CLASSES[1:] % 2), r"b\.x has few_shot_1 of 119 queries, .* has 120"),
        (
            made.probed({"scores": {}}, "few_shot_1", CLASSES % 2),
            r"b\.x: its few_shot_1 has other queries .*",
        ),
        (
            made.probed({"scores": {}}, "few_shot_1", CLASSES % 9, 10, CLASSES > 7),
            r"b\.x: its few_shot_1 has other queries or draws than that of other models",
        ),
        ({"scores": {"acc": 0.5, "acc5": 0.1, "few_shot_1": 0.5}}, r"b\.x: its verdicts do not match its few_shot_1"),
    ],
)
def test_probes_that_cannot_be_ranked_are_reported(change, why):
    results = probed()
    results[1] |= {**change, "scores": {**results[1]["scores"], **change.get("scores", {})}}
    run = run_of(results)
    with pytest.raises(NotRanked, match=f"^{why}$"):
        rank_models(run.results, run.dataset, ("few_shot_1",))
    rankings = run.rankings()
    assert "few_shot_1" not in rankings["f00d"].by
    assert all("probes" not in entry for entry in ranking_block(rankings))
