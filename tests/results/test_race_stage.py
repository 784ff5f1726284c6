"""The evidence of the race in the journal, and what it changes in the record."""

from __future__ import annotations

import json

import numpy as np
import pytest
import records

from embedcore.results.leaderboard import RACED_OUT, build, group_excluded
from embedcore.results.race_stage import RaceStage
from embedcore.results.result import InvalidResultError, Result
from embedcore.retrieval.race import Evidence

LOST = {"classes": 52, "acc": 0.2, "against": "a.x", "acc_against": 0.6, "at_most": 0.5}


def stage(model="b.x", classes=4, **changes):
    found = Evidence(
        np.array([1.0, 0, 2, 1]), np.array([1.0, 0.25, 1 / 3, 0]), np.array([1.0, 0, 1.5, 0]), np.array([1.0, 1, 2, 1])
    )
    return RaceStage.of((model, "abc", classes), found, {"source": "hub", "id": "sha256:1"}, "f" * 32)


def raced_out(model="b.x", **changes):
    return Result.make(model, family="vit", status="raced-out", reason=f"behind a.x: {model}", race=LOST | changes)


def test_the_evidence_survives_the_journal(tmp_path, result_of):
    record = records.begun(tmp_path, ["a.x", "b.x"])
    record.keep_stage(stage())
    lines = record.unsent()
    assert lines and not any("race_stage" in line for line in lines)
    record.close()
    again = records.begun(tmp_path, ["a.x", "b.x"], "later", resume=True)
    assert list(again.race) == [("b.x", "abc", 4)]
    found = again.race["b.x", "abc", 4]
    assert found == stage() and found.weights["id"] == "sha256:1" and found.embeddings == "f" * 32
    assert found.evidence.whole.tolist() == [1, 0, 2, 1] and found.evidence.first.tolist() == [1, 0.25, 0.3333, 0]
    again.close()


def test_a_stage_that_does_not_fit_is_refused():
    record = records.Record()
    fields = {"model": "b.x", "dataset": "abc", "classes": 3, "whole": [1], "first": [], "half": [], "sixteenth": []}
    with pytest.raises(InvalidResultError, match="stage of the race"):
        record.take({"race_stage": fields})


def test_a_raced_out_model_is_final_skipped_and_has_its_bound():
    result = raced_out()
    assert result.final and result.outcome == "skip" and not result.ok
    assert result.excluded_info()["race"] == LOST
    assert Result.from_json(json.loads(json.dumps(result.excluded_info()))).race == LOST
    assert "race" not in result.extra_info()


def test_only_a_model_that_cannot_be_measured_has_failed_before(tmp_path, result_of):
    planned = ["a.x", "b.x", "c.x", "d.x"]
    large = Result.make("c.x", family="vit", status="too-large", reason="so it is")
    record = records.begun(tmp_path, planned)
    records.keep(record, result_of("a.x"), raced_out("b.x"), large)
    record.close()
    again = records.begun(tmp_path, planned, "later", resume=True)
    assert [again.failed_before((model, None)) for model in planned] == [False, False, True, False]
    assert again.left == ["d.x"]
    again.close()


def test_a_raced_out_case_takes_no_time(tmp_path, result_of):
    record = records.begun(tmp_path, ["a.x", "b.x", "c.x"], costs={"a.x": 1.0, "b.x": 1.0, "c.x": 1.0})
    records.keep(record, result_of("a.x"))
    before = record.remaining()[1]
    record.raced_out.add("b.x")
    assert record.expected_s("b.x") == 0 and record.expected_s("c.x") > 0
    count, after = record.remaining()
    assert count == 2 and after[1] < before[1]
    record.close()


def test_raced_out_models_are_listed_together_the_least_certain_first(result_of):
    results = [raced_out("b.x"), raced_out("c.x", at_most=0.9), raced_out("d.x", against="c.x", at_most=0.5)]
    (group,) = group_excluded(results)
    assert group.reason == RACED_OUT and [result.model for result in group.results] == ["c.x", "b.x", "d.x"]
    assert group_excluded(results[:1])[0].reason == "behind a.x: b.x"
    board = build([result_of("a.x", acc=0.4), *results], dataset={})
    bounds = {result.model: board.acc_bound(result) for result in results}
    assert bounds == pytest.approx({"b.x": 0.2, "c.x": 0.36, "d.x": 0.18})


def test_without_the_leader_there_is_no_bound(result_of):
    board = build([raced_out("b.x"), raced_out("c.x", against="c.x")], dataset={})
    assert [board.acc_bound(result) for result in board.excluded_results] == [None, None]
    measured = result_of("a.x")
    assert build([measured], dataset={}).acc_bound(measured) is None
