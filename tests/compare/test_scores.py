"""Changes of scores: tested over classes, all models and metrics in one family of hypotheses."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare import statistics
from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge, why_no_answer
from embedcore.errors import UsageError
from embedcore.results.verdicts import pack_verdicts

LIMITS = Limits(parse_limits(DEFAULT))
QUERIES = 582


def info(name, classes, right):
    """A model whose queries are right (all five hits) or wrong (none)."""
    right = np.asarray(right, dtype=bool)
    hits = np.where(right, 5, 0).astype(np.uint8)
    score = float(right.mean())
    scores = {"acc": score, "acc5": score, "hit5": score}
    return made.result(name, classes, hits, verdicts=pack_verdicts(hits, right), scores=scores)


def compared(classes, *falls, right=None, **block):
    """Two runs of a model for each fall: its lost queries. Half of the queries are right in the base run."""
    right = np.arange(len(classes)) % 2 == 0 if right is None else right
    sides = []
    for lost in (np.zeros((len(falls), 0), dtype=int), falls):
        results = []
        for number, queries in enumerate(lost):
            now = right.copy()
            now[queries] = ~now[queries]
            results.append(info(f"net{number}.tag", classes, now))
        sides.append(made.as_run(made.saved(results, classes, **block)))
    return compare(*sides)


def found(comparison):
    return {finding.model for finding in judge(comparison, LIMITS).of("regression")} - {"images_per_s"}


def change(comparison, metric="acc", place=0):
    return next(c for c in comparison.models[place].changes if c.what == metric)


def test_fourteen_lost_queries_of_one_model_in_619_are_found():
    classes = np.arange(QUERIES) // 2
    lost = np.arange(0, 28, 2)
    comparison = compared(classes, lost, *[[]] * 618)
    assert found(comparison) == {"net0.tag"}
    assert change(comparison).p == pytest.approx(2 * 2.0**-14)


@pytest.mark.parametrize("metric", ["acc", "acc5", "hit5"])
def test_near_copies_in_one_class_are_one_observation(metric):
    classes = np.repeat(np.arange(100), 20)
    copies = change(compared(classes, np.arange(0, 20, 2)), metric)
    assert copies.p == 1 and not copies.real and copies.change == pytest.approx(10 / 2000)
    assert copies.low < 0 < copies.high
    apart = change(compared(classes, np.arange(0, 200, 20)), metric)
    assert apart.p == pytest.approx(2 * 2.0**-10) and apart.low > 0


@pytest.mark.parametrize("number", [2, 3, 5, 10, 19])
def test_with_few_classes_queries_are_tested_but_one_class_alone_is_not_enough(number):
    classes = np.arange(400) % number
    right = np.ones(400, dtype=bool)
    everywhere = compared(classes, np.arange(100), right=right)
    assert found(everywhere) == {"net0.tag"} and change(everywhere).low > 0
    assert found(compared(classes, np.flatnonzero(classes == 1), right=right)) == set()


def test_all_models_and_metrics_are_one_family():
    """Six lost queries are found in one model (p = .03), not if as many models could have lost them by chance."""
    classes = np.arange(QUERIES)
    six, even = np.arange(0, 12, 2), np.arange(100, 120)
    assert found(compared(classes, six)) == {"net0.tag"}
    assert found(compared(classes, six, *[[]] * 50)) == {"net0.tag"}
    assert found(compared(classes, six, *[even] * 50)) == set()
    assert found(compared(classes, *[six] * 51)) == {f"net{n}.tag" for n in range(51)}
    alone, beside = compared(classes, six), compared(classes, six, even)
    assert change(beside).p > change(alone).p == pytest.approx(2 * 2.0**-6)


def test_queries_without_a_reference_are_left_out_as_in_the_scores():
    classes = np.arange(QUERIES) // 2
    dataset = {"lone_classes": [0, 1], "lone_queries": 4}
    right = np.arange(QUERIES) >= 4
    sides = [info("net.tag", classes, side) for side in (right, right & (np.arange(QUERIES) >= 40))]
    for side, wrong in zip(sides, (0, 36), strict=True):
        side["scores"] = dict.fromkeys(("acc", "acc5", "hit5"), 1 - wrong / (QUERIES - 4))
    comparison = compare(*(made.as_run(made.saved([side], classes, dataset=dataset)) for side in sides))
    assert change(comparison).change == pytest.approx(36 / (QUERIES - 4))


@pytest.mark.parametrize("metric", ["acc", "acc5", "hit5"])
@pytest.mark.parametrize("equal_verdicts", [True, False])
@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_contradict_their_verdicts_are_one_line(metric, equal_verdicts, side):
    classes = np.arange(QUERIES)
    right = np.arange(QUERIES) % 2 == 0
    infos = [info("net.tag", classes, right & (equal_verdicts | (np.arange(QUERIES) > side))) for side in (0, 1)]
    infos[side]["scores"] |= {metric: 0.25}
    runs = [made.as_run(made.saved([each], classes), f"{name}.json") for each, name in zip(infos, "ab", strict=True)]
    with pytest.raises(UsageError, match=rf"{'ab'[side]}.json: result of net.tag: its {metric} is 0.25.*verdicts give"):
        compare(*runs)


def probed(name, rights, tries=1, judged=None):
    """Two runs of one model that differ in the outcomes of a probe alone."""
    classes = np.arange(QUERIES) // 2
    infos = [made.probed(info("net.tag", classes, classes % 2), name, right, tries, judged) for right in rights]
    return [made.as_run(made.saved([each], classes)) for each in infos]


def fallen(lost):
    right = np.ones(QUERIES, dtype=int)
    right[lost] = 0
    return np.ones(QUERIES, dtype=int), right


@pytest.mark.parametrize("lost", [5, 7])
def test_a_fall_of_a_probe_is_a_regression_if_it_has_a_limit(lost):
    comparison = compare(*probed("probe_ridge", fallen(2 * np.arange(lost))))
    found = change(comparison, "probe_ridge")
    assert found.p == pytest.approx(2 * 2.0**-lost) and found.change == pytest.approx(lost / QUERIES)
    assert found.low < found.change < found.high and found.real == (lost == 7)
    limited = Limits(parse_limits("default,probe_ridge:0.5pt"))
    verdict = judge(comparison, limited)
    assert [f.change.what for f in verdict.of("regression")] == ["probe_ridge"] * (lost == 7)
    assert "probe_ridge 0.5 pt" in str(limited)
    assert judge(comparison, LIMITS).passed and verdict.passed == (lost == 5)
    assert {part.what: part.judged for part in verdict.judged}["probe_ridge"] == 1
    assert "probe_ridge" not in {part.what for part in judge(comparison, LIMITS).judged}


def test_shares_of_draws_are_tested_on_the_judged_queries():
    rng = np.random.default_rng(0)
    judged = np.arange(QUERIES) < 400
    before = rng.integers(3, 11, QUERIES)
    after = np.where(np.arange(QUERIES) % 4 == 0, before - 3, before)
    found = change(compare(*probed("few_shot_2", (before, after), 10, judged)), "few_shot_2")
    step = (after - before)[judged]
    assert found.change == pytest.approx(-step.mean() / 10)
    of_class = np.bincount(np.arange(400) // 2, weights=-step / 10)
    expected = statistics.paired_by_class(of_class[None], np.full(200, 2))
    assert (found.low, found.high) == pytest.approx((expected.low[0], expected.high[0]))
    assert found.p < 1e-9


def test_probes_are_in_the_family_of_all_tests():
    """Six lost queries of acc are not found beside as many changes by chance in the probes of other models."""
    classes = np.arange(QUERIES)
    right = np.arange(QUERIES) % 2 == 0
    sides = []
    for side in (0, 1):
        worse = right.copy()
        worse[np.arange(0, 12 * side, 2)] = False
        noise = right ^ ((np.arange(QUERIES) >= 100) & (np.arange(QUERIES) < 120) & bool(side))
        infos = [info("net0.tag", classes, worse)]
        infos += [made.probed(info(f"net{n}.tag", classes, right), "probe_ridge", noise) for n in range(1, 51)]
        sides.append(made.as_run(made.saved(infos, classes)))
    comparison = compare(*sides)
    assert change(comparison, "probe_ridge", 1).p == 1
    assert change(comparison).p > 2 * 2.0**-6 and found(comparison) == set()


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        ([{}, {}], "no probe_ridge (base and new)"),
        ([{"right": 1}, {}], "no probe_ridge (new)"),
        ([{"right": 1}, {"right": 1, "judged": np.arange(QUERIES) > 9}], "judged on other queries or draws"),
        ([{"right": 1}, {"right": 2, "tries": 2}], "judged on other queries or draws"),
    ],
)
def test_a_probe_with_a_limit_that_cannot_be_judged_does_not_pass(sides, why):
    classes = np.arange(QUERIES) // 2
    runs = []
    for side in sides:
        result = info("net.tag", classes, classes % 2)
        if side:
            right = np.full(QUERIES, side["right"])
            result = made.probed(result, "probe_ridge", right, side.get("tries", 1), side.get("judged"))
        runs.append(made.as_run(made.saved([result], classes)))
    comparison = compare(*runs)
    verdict = judge(comparison, Limits(parse_limits("default,probe_ridge:1pt")))
    assert not verdict.passed and not verdict.failed
    assert why_no_answer(comparison, verdict) == f"probe_ridge of net.tag: {why}"
    assert judge(comparison, LIMITS).passed


def test_a_probe_that_contradicts_its_outcomes_is_one_line():
    runs = []
    for value in (1.0, 0.25):
        result = made.probed(info("net.tag", np.arange(QUERIES), np.ones(QUERIES)), "probe_ridge", np.ones(QUERIES))
        result["scores"] |= {"probe_ridge": value}
        runs.append(made.as_run(made.saved([result], np.arange(QUERIES))))
    with pytest.raises(UsageError, match=r"result of net.tag: its probe_ridge is 0.2500, and its verdicts give 1.0000"):
        compare(*runs)
