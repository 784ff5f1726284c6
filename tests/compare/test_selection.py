"""A model that only the base run has is deselected only if the new run's selection excludes it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import synthetic_runs as made
from _pytest.mark.expression import Expression
from hypothesis import given
from hypothesis import strategies as st

from embedcore.compare import selection
from embedcore.compare.comparison import compare
from embedcore.compare.limits import Limits, parse_limits
from embedcore.compare.verdict import judge

CLASSES = np.repeat(np.arange(20), 5)
GONE = "vit_tiny.in1k"
STATUS = Limits(parse_limits("status"))


def run(*models, **block):
    infos = [made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.6)) for model in models]
    return made.as_run(made.saved(infos, CLASSES, **block))


def fate(*, present=("resnet18.a1_in1k",), base=None, gone=GONE, **chosen):
    """``deselected`` or ``missing``: the model that only the base run has."""
    before = run(gone, *present, **({} if base is None else {"selection": base}))
    comparison = compare(before, run(*present, selection=chosen))
    pairing = comparison.pairing
    groups = {"deselected": pairing.deselected, "missing": pairing.missing}
    (found,) = [name for name, results in groups.items() if [each.model for each in results] == [gone]]
    assert judge(comparison, STATUS).passed == (found == "deselected")
    return found


def test_a_model_that_a_wider_selection_names_is_missing():
    before = {"roster": "vit_tiny,resnet18.a1_in1k"}
    after = {"roster": "vit_tiny,resnet18.a1_in1k,resnet50"}
    assert fate(base=before, present=("resnet18.a1_in1k", "resnet50.a1_in1k"), **after) == "missing"


@pytest.mark.parametrize("base", [None, {}, {"roster": "all"}, {"roster": "local", "keyword": "x"}])
def test_the_selection_of_the_base_run_does_not_matter(base):
    assert fate(base=base, roster="all") == "missing"
    assert fate(base=base, roster="all", keyword="resnet") == "deselected"
    assert fate(base=base) == "missing"


SELECTIONS = {
    "deselected": [
        {"family": ["resnet18"]},
        {"family": ["ResNet18 "]},
        {"roster": "resnet*"},
        {"roster": "timm/resnet18.a1_in1k, resnet50"},
        {"roster": "all", "keyword": "resnet"},
        {"roster": "all", "keyword": "not VIT and (resnet or swin)"},
        {"roster": "local", "shard": "2/2", "other_shards": [GONE]},
    ],
    "missing": [
        {"family": ["vit", "resnet18"]},
        {"roster": "vit_tiny,resnet18.a1_in1k"},
        {"roster": "timm/vit_tiny.in1k resnet18.a1_in1k"},
        {"roster": "vit*,resnet*"},
        {"roster": "*.in1k,resnet*"},
        {"roster": "local"},
        {"roster": "article,resnet18.a1_in1k"},
        {"roster": "ours.txt,resnet18.a1_in1k"},
        {"roster": "lists/ours"},
        {"roster": "all", "keyword": "vit or resnet"},
        {"roster": "all", "keyword": "not swin"},
        {"roster": "all", "keyword": "test_model"},
        {"roster": "all", "keyword": "benchmarks"},
        {"roster": "all", "keyword": "resnet and (vit"},
        {"roster": "all", "keyword": "of my own tests"},
        {"roster": "all", "marks": "slow"},
        {"roster": "all", "shard": "2/2", "other_shards": ["other.model"]},
        {"roster": "all", "shard": "2/2"},
        {"roster": None, "family": None, "keyword": 1, "other_shards": "vit_tiny.in1k"},
    ],
}


@pytest.mark.parametrize(("expected", "chosen"), [(fate, each) for fate, of in SELECTIONS.items() for each in of])
def test_only_a_selection_that_excludes_the_model_deselects_it(expected, chosen):
    assert fate(**chosen) == expected


def test_an_old_name_in_the_roster_asks_for_the_new_one():
    present = ("resnet18.a1_in1k",)
    base = run(GONE, *present)
    new = run(*present, selection={"roster": "vit_old,resnet18"}, renamed={"vit_old": GONE})
    assert [each.model for each in compare(base, new).pairing.missing] == [GONE]


WORDS = st.sampled_from(["vit", "tiny", "resnet", "in1k", "[vit_tiny.in1k]"])
EXPRESSIONS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        inner.map("not {}".format),
        inner.map("({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
    ),
)


@given(EXPRESSIONS)
def test_keywords_are_evaluated_as_pytest_does(expression):
    case = "test_model[vit_tiny.in1k]"
    expected = Expression.compile(expression).evaluate(lambda word, **_: re.escape(word.lower()) in re.escape(case))
    assert selection._evaluated(expression, case.__contains__) == expected


@pytest.mark.parametrize("expression", ["", "(", "vit or", "and", "vit swin", "(vit", "vit)", "not"])
def test_what_is_no_expression_has_no_value(expression):
    assert selection._evaluated(expression, lambda _: True) is None


def test_a_race_that_stopped_a_model_deselects_it():
    lost = {
        "model": GONE,
        "family": "vit",
        "status": "raced-out",
        "reason": "behind the leader",
        "race": {"at_most": 0.9},
    }
    base = run(GONE, "resnet18.a1_in1k")
    new = run("resnet18.a1_in1k", excluded=[lost])
    pairing = compare(base, new).pairing
    assert [each.model for each in pairing.deselected] == [GONE] and not pairing.missing
    assert not compare(new, base).pairing.missing and [r.model for r in compare(new, base).pairing.added] == [GONE]
