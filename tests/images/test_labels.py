from __future__ import annotations

import datetime
import enum
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.images.labels import class_name, class_names, is_missing, notes_on


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cat", "cat"),
        (" cat\n", "cat"),
        (b"cat", "cat"),
        (np.str_("cat"), "cat"),
        (np.bytes_(b"cat"), "cat"),
        ("0.5", "0.5"),
        ("007", "007"),
        ("1 2 3", "1 2 3"),
        ("2024-01-02", "2024-01-02"),
        ("[other]", "[other]"),
        ("nano", "nano"),
        ("-", "-"),
        (True, "True"),
        (np.bool_(False), "False"),
        (torch.tensor(True), "True"),
        (2**70, str(2**70)),
        (np.uint8(7), "7"),
        (7.0, "7"),
        (np.float32(7), "7"),
        (Decimal("7.0"), "7"),
        (Fraction(14, 2), "7"),
        (torch.tensor(7), "7"),
        (torch.tensor([[7]]), "7"),
        (torch.tensor(7.0, dtype=torch.bfloat16, requires_grad=True), "7"),
        (np.array(7), "7"),
        (np.array(["cat"]), "cat"),
        (np.array(["cat"], object), "cat"),
        (np.ma.array([7], mask=[0]), "7"),
        (Colour.RED, "Colour.RED"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (np.datetime64("2024-01-02"), "2024-01-02"),
        (pandas.Timestamp("2024-01-02"), "2024-01-02 00:00:00"),
    ],
)
def test_names(label: object, name: str) -> None:
    assert class_name(label) == name


MISSING = [
    *(None, float("nan"), np.float32("nan"), Decimal("nan"), np.nan, pandas.NA, pandas.NaT, np.datetime64("NaT")),
    *(np.ma.masked, "", "  ", b"", np.str_("")),
]


@pytest.mark.parametrize("label", MISSING, ids=repr)
def test_a_missing_label_is_refused(label: object) -> None:
    assert is_missing(label)
    with pytest.raises(ValueError, match=r"^the label is missing \(.*\): leave the image out"):
        class_name(label)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        *((text, "the label is missing") for text in ("nan", "NaN", " NAN ", "<NA>", "NaT", "#N/A", b"nan")),
        *((one, "the label is missing") for one in (torch.tensor(float("nan")), np.array([None]), np.array([""]))),
        (np.ma.array([7], mask=[1]), "the label is missing"),
        *((one, "the label -1 is negative") for one in (-1, -1.0, np.int8(-1), torch.tensor([-1]), "-1", " -1")),
        ("-1.0", r"the label -1\.0 is negative"),
        (-100, "the label -100 is negative"),
        *(
            (one, "is not a whole number")
            for one in (0.5, np.float64(0.5), torch.tensor(0.5), Fraction(1, 2), Decimal("0.5"))
        ),
        *((one, "the label inf is not a whole number") for one in (float("inf"), np.float32("inf"))),
        (torch.zeros(40), r"a Tensor of shape \[40\]: each image needs one class"),
        (np.eye(3)[0], r"a ndarray of shape \[3\]"),
        (torch.zeros(0), r"a Tensor of shape \[0\]"),
        (pandas.Series([1, 0]), r"a Series of shape \[2\]"),
        *(
            (one, f"is a {type(one).__name__}: each image needs one class")
            for one in ([1], ["a", "b"], (1,), {"a": 1}, {1}, object())
        ),
        *(
            (text, "each image needs one class")
            for text in ("[0, 1]", "[0 1]", "{'box': 1}", "['cat', 'dog']", '{"a":1}')
        ),
        *((text, "each image needs one class") for text in ("0 .5 .5 .2 .3", "1,0,0,0", "0; 1; 0; 1e-3", "-1 2 3 4")),
        (b"\xff", "is not UTF-8"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_invalid_labels_are_refused(label: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        class_name(label)
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(0, 2**62)))
def test_numbers_of_every_kind_are_the_same_classes(numbers: list[int]) -> None:
    expected = [str(number) for number in numbers]
    for labels in (numbers, np.array(numbers, np.int64), torch.tensor(numbers, dtype=torch.int64), expected):
        assert class_names(labels, str) == expected


def test_the_first_invalid_label_is_named() -> None:
    with pytest.raises(UsageError, match=r"^place 2: the label is missing \(None\)") as caught:
        class_names(iter(["a", "b", None, -1]), lambda index: f"place {index}")
    assert isinstance(caught.value.__cause__, ValueError)


def test_names_that_often_mean_missing() -> None:
    assert notes_on(["a", "None", "none", "N/A", "None", "NULL", "nonesuch"]) == (
        "class 'N/A' has 1 image: if the name means a missing label, leave them out",
        "class 'NULL' has 1 image: if the name means a missing label, leave them out",
        "class 'None' has 2 images: if the name means a missing label, leave them out",
        "class 'none' has 1 image: if the name means a missing label, leave them out",
        "classes that differ in case or white space only are different classes: 'None', 'none'",
    )


def test_a_name_is_one_in_either_form_of_unicode() -> None:
    assert class_names(["\u00e9t\u00e9", "e\u0301te\u0301"], str) == ["\u00e9t\u00e9"] * 2
