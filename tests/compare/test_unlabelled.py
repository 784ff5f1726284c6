"""The gate for runs on images without labels: view_recall under the rules of acc."""

from __future__ import annotations

import json

import numpy as np
import synthetic_runs as made

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.scores import step_test
from embedcore.compare.verdict import judge
from embedcore.report.gate.comparison_export import to_json
from embedcore.report.gate.comparison_text import markdown, text
from embedcore.results.verdicts import pack_verdicts, unpack_verdicts

IMAGES = 400
LIMITS = Limits(parse_limits(DEFAULT))
MODELS = ("a.x", "b.x")


def runs(lost):
    """A run and one in which the first model loses these images."""
    infos = [made.by_views(model, IMAGES, 0.6) for model in MODELS]
    hits, first = unpack_verdicts(infos[0]["verdicts"])
    fallen = np.flatnonzero(first)[:lost]
    after, five = first.copy(), hits.copy()
    after[fallen], five[fallen] = False, 0
    scores = {"view_recall": float(after.mean()), "view_recall5": float((five > 0).mean())}
    worse = infos[0] | {"verdicts": pack_verdicts(five, after), "scores": scores}
    return [made.as_run(made.saved_by_views(each, IMAGES)) for each in (infos, [worse, infos[1]])]


def test_a_fall_is_tested_by_image_and_judged_by_its_own_limit():
    base, new = runs(20)
    comparison = compare(base, new)
    verdict = judge(comparison, LIMITS)
    found = {finding.change.what: finding for finding in verdict.of("regression")}
    assert verdict.failed and {*found} == {"view_recall", "view_recall5"}
    change = found["view_recall"].change
    before, after = (unpack_verdicts(run.results[0].verdicts).first.astype(np.int64) for run in (base, new))
    assert change.change == (before - after).mean() == 20 / IMAGES
    assert change.p >= step_test(after - before, np.arange(IMAGES), IMAGES).p and change.low < 0.05 < change.high
    assert found["view_recall"].limit == 0.005
    for shown in (text(comparison, verdict, width=100), markdown(comparison, verdict), to_text(comparison, verdict)):
        assert "view_recall" in shown and "acc" not in shown.replace("accepted", "").replace("Accepted", "")


def to_text(comparison, verdict):
    found = to_json(comparison, verdict)
    assert {*found["families"][0]} == {"family", "models", "speed_ratio", "view_recall_change"}
    return json.dumps(found)


def test_equal_runs_pass_and_the_scores_were_judged():
    base, _ = runs(0)
    verdict = judge(compare(base, base), LIMITS)
    assert verdict.passed and next(part for part in verdict.judged if part.what == "scores").judged == 2


def test_a_labelled_run_of_the_same_images_is_not_compared():
    base, _ = runs(0)
    classes = np.arange(IMAGES) % 20
    infos = [made.result(model, classes, made.hits_of(model, classes, 0.5)) for model in MODELS]
    labelled = made.as_run(made.saved(infos, classes, dataset={"fingerprint": "beef"}))
    comparison = compare(base, labelled)
    assert comparison.barriers["scores"].startswith("another dataset: photos")
    assert not judge(comparison, LIMITS).passed
