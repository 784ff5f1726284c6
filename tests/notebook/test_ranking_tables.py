"""Leaderboards and ranks as DataFrames agree with the report and with `embedcore rank`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from notebook_runs import CLASSES, results, run_of
from synthetic_runs import saved

from embedcore import UsageError, leaderboard, rank

GONE = {"model": "beit_gone.a", "family": "beit", "status": "no-weights", "reason": "beit_gone.a: no weights"}


def test_a_leaderboard_has_all_models_best_first_with_intervals_ranks_and_ties():
    run = run_of(excluded=[GONE], ci95={"acc": (0.1, 0.9)})
    frame = leaderboard(run)
    ranks = run.rankings()["f00d"].by["acc"].model_ranks()
    assert list(frame["model"])[-2:] == ["vgg_poor.a", "beit_gone.a"] and len(frame) == 5
    assert list(frame["acc"][:4]) == sorted((each.scores["acc"] for each in run.results), reverse=True)
    for row in frame[:4].to_dict("records"):
        place = ranks[row["model"]]
        assert (row["rank"], row["rank95_low"], row["rank95_high"]) == (place.rank, *place.rank95)
        assert row["tied_with_leader"] == place.tied_with_leader and row["p_best"] == place.p_best
        assert (row["acc_low"], row["acc_high"], row["images_per_s"], row["status"]) == (0.1, 0.9, 16.0, "ok")
    last = frame.iloc[-1]
    assert (last["status"], last["reason"]) == ("no-weights", GONE["reason"])
    assert frame["rank"].isna().tolist() == [False] * 4 + [True] and np.isnan(last["acc"])


@pytest.mark.parametrize("metric", ["acc", "acc5"])
def test_ranks_are_those_of_the_report(metric):
    run = run_of()
    frame = rank(run, metric=metric)
    expected = run.rankings()["f00d"].by[metric].model_ranks()
    assert set(frame["model"]) == set(expected) and list(frame["rank"]) == sorted(frame["rank"])
    for row in frame.to_dict("records"):
        place = expected[row["model"]]
        assert (row["rank"], row["rank_low"], row["rank_high"]) == (place.rank, *place.rank95)
        assert row["tied"] == place.tied_with_leader
    assert list(frame[metric]) == sorted(frame[metric], reverse=True)


def test_runs_on_one_dataset_are_ranked_together():
    frame = rank(run_of("vit_good.a", "vgg_poor.a"), run_of("resnet_fair.a", "vit_twin.a", name="other.json"))
    assert frame.equals(rank(run_of("vit_good.a", "vgg_poor.a", "resnet_fair.a", "vit_twin.a")))


def test_several_datasets_give_mean_ranks(tmp_path):
    other = tmp_path / "other.json"
    data = saved(results(seed=1), CLASSES, dataset={"fingerprint": "beef", "name": "products"})
    other.write_text(json.dumps(data))
    frame = rank(run_of(), other)
    assert list(frame.columns) == ["model", "mean_rank", "low", "high", "photos", "products"]
    assert list(frame["model"])[2:] == ["resnet_fair.a", "vgg_poor.a"]
    assert ((frame["low"] <= frame["mean_rank"]) & (frame["mean_rank"] <= frame["high"])).all()
    assert list(frame["mean_rank"]) == list((frame["photos"] + frame["products"]) / 2)


def test_what_cannot_be_ranked_is_one_line():
    with pytest.raises(UsageError, match=r"^vgg_poor\.a is in two of these runs on photos: compare\(a, b\) compares"):
        rank(run_of("vgg_poor.a"), run_of("vgg_poor.a", "vit_good.a"))
    with pytest.raises(UsageError, match=r"another setting: protocol native, now square224$"):
        rank(run_of("vgg_poor.a"), run_of("vit_good.a", settings={"protocol": "square224"}))
    with pytest.raises(UsageError, match=r"^metric is 'map_at_r': ranks have intervals by acc, acc5, hit5, probe_"):
        rank(run_of(), metric="map_at_r")
    with pytest.raises(UsageError, match=r"^no model was measured"):
        rank()
    with pytest.raises(UsageError, match=r"^no saved run nowhere\.json"):
        rank("nowhere.json")
