"""Changes of scores: tested over classes, all models and metrics in one family of hypotheses."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge
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
