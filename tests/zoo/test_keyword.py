from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.zoo.keyword import select

TAGS = ["vit_tiny.in1k", "vit_base.IN21k", "resnet50.in1k", "android.in1k"]
WORDS = st.sampled_from(["vit", "IN1K", "res", "and", "zzz"]).filter(lambda word: word != "and")
EXPRESSIONS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        inner.map(lambda a: f"not {a}"),
        inner.map(lambda a: f"({a})"),
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_words_bind_as_in_python(expression):
    expected = []
    for tag in TAGS:
        text = expression
        for word in ("vit", "IN1K", "res", "zzz"):
            text = text.replace(word, str(word.lower() in tag.lower()))
        if eval(text):
            expected.append(tag)
    assert select(TAGS, expression) == expected


def test_an_empty_expression_takes_all():
    assert select(TAGS, " ") == TAGS


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("vit and", "a word is missing at the end"),
        ("vit resnet", "'and' or 'or' is missing before 'resnet'"),
        ("(vit", r"a '\)' is missing"),
        ("or vit", "a word is missing before 'or'"),
        ("vit)", r"is missing before '\)'"),
        ("()", r"a word is missing before '\)'"),
        ("(" * 100_000, "too many parentheses"),
        ("not " * 100_000, "too many"),
    ],
)
def test_what_is_no_expression_is_told(expression, what):
    with pytest.raises(UsageError, match=what) as caught:
        select(TAGS, expression)
    assert len(str(caught.value)) < 200


def test_all_pairs_of_words_agree_with_sets():
    for a, b in itertools.product(("vit", "res", "in1k"), repeat=2):
        both = {tag for tag in TAGS if a in tag and b in tag}
        assert set(select(TAGS, f"{a} and {b}")) == both
