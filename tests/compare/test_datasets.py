"""Runs on several datasets: each case is compared with itself, as in runs of one dataset each."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.results.record import Record

CLASSES = {"photos": np.repeat(np.arange(200), 10), "drawings": np.repeat(np.arange(50), 20)}
LIMITS = Limits(parse_limits(DEFAULT))
MODELS = ("vit_tiny.in1k", "resnet18.a1_in1k")


def block(name, classes):
    return {"name": name, "fingerprint": name, "classes": 2, "queries": len(classes), "references": len(classes)}


def result(model, name, acc=0.6, **changes):
    classes = CLASSES[name]
    return made.result(model, classes, made.hits_of(model, classes, acc), dataset=name, **changes)


def run_of(*results):
    """A run of these results."""
    return made.as_run(saved_of(*results))


def saved_of(*results):
    """The JSON of a run of these results; ``datasets``: their datasets, in order."""
    names = list(dict.fromkeys(info["dataset"] for info in results))
    saved = made.saved(list(results), CLASSES[names[0]])
    blocks = [saved["embedcore"]["dataset"] | block(name, CLASSES[name]) for name in names]
    for each, name in zip(blocks, names, strict=True):
        each["query_classes"] = made.pack_classes(CLASSES[name])
    saved["embedcore"] |= {"dataset": blocks[0]} | ({"datasets": blocks} if len(blocks) > 1 else {})
    return saved


def changes(comparison):
    return {model.model: model.changes for model in comparison.models}


def test_the_cases_of_two_datasets_change_as_each_alone():
    old = {(model, name): result(model, name) for name in CLASSES for model in MODELS}
    new = {key: result(*key, acc=0.5 if key == (MODELS[0], "drawings") else 0.6) for key in old}
    joined = compare(run_of(*old.values()), run_of(*new.values()))
    assert joined.compared == 4 and len(joined.pairing.pairs) == 4
    for name in CLASSES:
        alone = compare(*(run_of(*(side[model, name] for model in MODELS)) for side in (old, new)))
        assert {f"{model} on {name}": found for model, found in changes(alone).items()}.items() <= changes(
            joined
        ).items()
    verdict = judge(joined, Limits(parse_limits(DEFAULT)))
    assert {finding.model for finding in verdict.of("regression")} == {"vit_tiny.in1k on drawings"}


def test_limits_of_a_model_hold_on_each_dataset():
    old, new = (run_of(*(result(MODELS[0], name, acc) for name in CLASSES)) for acc in (0.6, 0.5))
    loose = Limits(parse_limits("acc:0.5pt"), [((MODELS[0],), (), {"acc": 0.9})])
    assert judge(compare(old, new), Limits(parse_limits("acc:0.5pt"))).of("regression")
    assert judge(compare(old, new), loose).passed


def test_a_dataset_that_is_gone_is_missing_and_a_new_one_is_added():
    both, photos = run_of(*(result(MODELS[0], name) for name in CLASSES)), run_of(result(MODELS[0], "photos"))
    gone = compare(both, photos)
    assert [case.model for case in gone.pairing.missing] == ["vit_tiny.in1k on drawings"] and gone.compared == 1
    assert not judge(gone, Limits(parse_limits("status"))).passed
    more = compare(photos, both)
    assert [case.model for case in more.pairing.added] == ["vit_tiny.in1k on drawings"]
    assert judge(more, Limits(parse_limits("status"))).passed


def test_other_content_under_the_same_name_bars_the_scores_of_that_dataset():
    old, new = (run_of(*(result(MODELS[0], name) for name in CLASSES)) for _ in range(2))
    new.datasets[1]["fingerprint"] = "other drawings"
    there = tuple(msgspec.structs.replace(r, dataset=f"other {r.dataset}") for r in new.results[1:])
    found = {model.model: model for model in compare(old, replace(new, results=(new.results[0], *there))).models}
    assert "another dataset" in found["vit_tiny.in1k on drawings"].barriers["scores"]
    assert "scores" not in found["vit_tiny.in1k on photos"].barriers


def test_every_query_lost_and_a_third_of_the_speed_on_the_first_dataset_fails():
    old = {(model, name): result(model, name) for name in CLASSES for model in MODELS}
    slower = {"durations": [3.0] * 10, "images_per_s": {"forward": 16 / 3}, "dataset": "photos"}
    worse = made.result(MODELS[0], CLASSES["photos"], np.zeros(2000, dtype=np.uint8), **slower)
    new = old | {(MODELS[0], "photos"): worse}
    for order in (1, -1):  # the last dataset does not win
        verdict = judge(compare(run_of(*old.values()), run_of(*[*new.values()][::order])), LIMITS)
        assert {finding.model for finding in verdict.of("regression")} == {"vit_tiny.in1k on photos"}
        assert {"acc", "acc5", "images_per_s"} <= {finding.change.what for finding in verdict.of("regression")}


def test_datasets_of_unequal_size_are_equal_to_themselves():
    run = run_of(*(result(model, name) for name in CLASSES for model in MODELS))
    assert len(CLASSES["photos"]) != len(CLASSES["drawings"])
    comparison = compare(run, run)
    assert comparison.compared == 4
    assert not judge(comparison, Limits(parse_limits("acc:0pt,acc5:0pt,hit5:0pt,drift:0,status"))).findings


@pytest.mark.parametrize("lost", CLASSES)
def test_a_failure_on_one_dataset_does_not_hide_a_fall_on_the_other(lost):
    (fallen,) = {*CLASSES} - {lost}
    old = run_of(*(result(MODELS[0], name) for name in CLASSES))
    failed = {"model": MODELS[0], "family": "vit", "status": "oom", "reason": "", "dataset": lost}
    data = saved_of(*(result(MODELS[0], name, 0.6 if name == lost else 0.3) for name in CLASSES))
    data["embedcore"]["excluded"] = [failed]
    data["benchmarks"] = [each for each in data["benchmarks"] if each["extra_info"]["dataset"] == fallen]
    found = {(f.model, f.change.what) for f in judge(compare(old, made.as_run(data)), LIMITS).of("regression")}
    assert {(f"{MODELS[0]} on {lost}", "status"), (f"{MODELS[0]} on {fallen}", "acc")} <= found


def test_a_file_on_another_dataset_than_the_sessions_is_equal_to_itself():
    """The session loads its own images; the tests of the user's file measure on others only."""
    record = Record()
    blocks = {name: saved_of(result(MODELS[0], name))["embedcore"]["dataset"] for name in CLASSES}
    record.take({"datasets": [blocks["photos"]], "tests": {"t[a]": MODELS[0]}, "machine": made.MACHINE})
    record.take({"datasets": [blocks["drawings"]]})
    record.take(result(MODELS[0], "drawings") | {"test": "t[a]", "written": 1.0})
    data = record.data()
    assert data["embedcore"]["dataset"]["name"] == "drawings" and "datasets" not in data["embedcore"]
    run = made.as_run(data)
    comparison = compare(run, run)
    assert comparison.compared == 1 and not comparison.models[0].barriers.keys() & {"scores"}
    assert {"acc", "acc5", "hit5", "drift"} <= {change.what for change in comparison.models[0].changes}
