"""Runs on images without labels have other headline scores; ranks and validity follow them."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.errors import UsageError
from embedcore.results.headline import LABELLED, UNLABELLED, expect_labels, headline_of, headline_scores
from embedcore.results.leaderboard import boards_of, by_headline
from embedcore.results.ranking import NotRanked, rank_models, ranking_block
from embedcore.results.result import InvalidResultError, Result

IMAGES = 300
RECALLS = {"a.x": 0.9, "b.x": 0.6, "c.x": 0.58, "d.x": 0.1}


def run_of(**recalls):
    infos = [made.by_views(model, IMAGES, recall) for model, recall in (recalls or RECALLS).items()]
    return made.as_run(made.saved_by_views(infos, IMAGES))


def test_the_block_or_the_scores_tell():
    assert headline_scores({}) == headline_scores({"unlabelled": False}) == headline_of({"acc": 1.0}) == LABELLED
    assert headline_scores({"unlabelled": True}) == headline_of(["view_recall5"]) == UNLABELLED
    assert run_of().results[0].headline == UNLABELLED
    expect_labels([{}], "run.json", "pool")
    with pytest.raises(UsageError, match=r"^run.json: measured with --embed-unlabelled .*, and pool needs labels$"):
        expect_labels([{}, {"unlabelled": True}], "run.json", "pool")


def test_a_result_needs_both_scores():
    info = made.by_views("a.x", IMAGES, 0.5)
    assert "view_recall" in repr(Result.from_json(info))
    assert Result.from_json(info).unlabelled == {"near_duplicates": 0.125, "effective_rank": 31.4}
    del info["scores"]["view_recall5"]
    with pytest.raises(InvalidResultError, match="an ok result lacks view_recall5"):
        Result.from_json(info)


def test_ranks_are_those_of_the_views():
    run = run_of()
    rankings = rank_models(run.results, run.dataset)
    assert [*rankings] == [*UNLABELLED]
    for metric, ranking in rankings.items():
        assert ranking.order.means == pytest.approx([result.scores[metric] for result in run.results])
        assert ranking.classes == IMAGES
    assert rankings["view_recall"].model_ranks()["d.x"].rank95 == (4, 4)
    block = ranking_block(run.rankings())
    assert [entry["model"] for entry in block] == [*RECALLS] and "acc" not in str(block)
    (board,) = boards_of(run, {})
    assert board.unlabelled and board.headline == UNLABELLED
    for rows in (board.by_acc, by_headline(run.results)):
        assert [row.result.model for row in rows] == [*RECALLS]
    assert board.by_acc[1].model_rank.rank95 == (2, 3)


@pytest.mark.parametrize("metric", ["acc", "acc5", "hit5"])
def test_a_run_without_labels_has_no_score_of_labels(metric):
    run = run_of()
    with pytest.raises(NotRanked, match=f"a.x has no {metric}: its headline score is view_recall"):
        rank_models(run.results, run.dataset, (metric,))


def test_a_run_with_labels_has_no_agreement_of_views():
    classes = np.repeat(np.arange(20), 3)
    run = made.as_run(made.saved([made.result("a.x", classes, made.hits_of("a.x", classes, 0.5))], classes))
    with pytest.raises(NotRanked, match=r"a\.x has no view_recall: its headline score is acc"):
        rank_models(run.results, run.dataset, ("view_recall",))
