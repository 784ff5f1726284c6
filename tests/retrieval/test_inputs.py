"""Embeddings, labels and options of ordinary types: they work as expected, or are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from embedcore.errors import UsageError
from embedcore.retrieval.metrics import score
from embedcore.retrieval.search import nearest, nearest_except

LABELS = np.arange(40) % 5


@pytest.fixture
def rows(embeddings) -> np.ndarray:
    """Numbers that float32 and float16 both represent exactly, so that every kind is equal."""
    rows = embeddings(40, 64, centres=5).astype(np.float16).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda rows: rows.tolist(),
    "float64": lambda rows: rows.astype(np.float64),
    "transposed": lambda rows: np.asfortranarray(rows),
    "frame": pandas.DataFrame,
    "tensor": torch.tensor,
    "gradient": lambda rows: torch.tensor(rows, requires_grad=True),
    "parameter": lambda rows: torch.nn.Parameter(torch.tensor(rows)),
    "list of tensors": lambda rows: [torch.tensor(row, requires_grad=True) for row in rows],
    "list of arrays": list,
    "double": lambda rows: torch.tensor(rows).double(),
    "objects": lambda rows: rows.astype(object),
}


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_any_kind_are_the_same_rows(rows: np.ndarray, kind: str) -> None:
    expected, found = nearest(rows, k=5), nearest(KINDS[kind](rows), k=5)
    assert (found.indices == expected.indices).all() and (found.similarities == expected.similarities).all()
    assert score(KINDS[kind](rows), LABELS, resamples=10).values == score(rows, LABELS, resamples=10).values
    halves = KINDS[kind](rows[:20]), LABELS[:20], KINDS[kind](rows[20:]), LABELS[20:]
    assert score(*halves, resamples=10).values == score(rows[:20], LABELS[:20], rows[20:], LABELS[20:]).values
    third = nearest_except(KINDS[kind](rows[3:4]), KINDS[kind](rows), np.array([3]), 5)
    assert (third.indices == expected.indices[3]).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, np.float16])
@pytest.mark.parametrize("same", [False, True])
def test_half_precision_is_taken_for_the_directions_that_it_holds(rows: np.ndarray, kind: Any, same: bool) -> None:
    if same:  # all numbers of a row are rounded the same way, so that its length is off by more than float32's could be
        rows = np.repeat(np.sign(rows) * np.float32(1 / 8) * np.float32(1 - 2**-9 - 2**-12), 1, axis=1)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    half = rows.astype(kind) if kind is np.float16 else torch.tensor(rows).to(kind)
    wide = np.asarray(half.float() if kind is not np.float16 else half).astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    exact = wide @ wide.T
    np.fill_diagonal(exact, -np.inf)
    found = nearest(half, k=5)
    np.testing.assert_allclose(found.similarities, -np.sort(-exact, axis=1)[:, :5], atol=1e-6)
    assert score(half, LABELS, resamples=10).values == score(wide, LABELS, resamples=10).values
    assert (nearest([*half], k=5).indices == found.indices).all()
    with pytest.raises(UsageError, match=r"queries are not L2-normalised: row 0 has norm 1\.5"):
        nearest(half * 1.5, k=5)


def with_row(rows: np.ndarray, row: int, value: float) -> np.ndarray:
    rows = rows.copy()
    rows[row] = value
    return rows


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30])
def test_a_row_of_zeros_has_no_direction(rows: np.ndarray, value: float) -> None:
    zero = with_row(rows, 3, value)
    for call in (
        lambda: nearest(zero),
        lambda: nearest(zero, rows),
        lambda: nearest_except(zero, rows, np.arange(40), 5),
        lambda: score(zero, LABELS),
        lambda: score(torch.tensor(zero), LABELS, rows, LABELS),
    ):
        with pytest.raises(UsageError, match=r"contain zero vectors, first in row 3 \(1 of 40 rows\)"):
            call()
    with pytest.raises(UsageError, match=r"^references contain zero vectors"):
        score(rows, LABELS, zero, LABELS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "queries are not an array of numbers"),
        (None, "queries have shape"),
        (["a", "b"], "queries are not an array of numbers"),
        ([[1.0, 0.0], [1.0]], "queries are not an array of numbers"),
        ([[1.0, None]], "queries contain NaN or infinity|queries are not an array of numbers"),
        ({"a": [1.0]}, "queries are not an array of numbers"),
        (np.eye(2, dtype=complex), "queries are complex128"),
        (torch.eye(2, dtype=torch.complex64), "queries are torch.complex64"),
        (torch.eye(2).to_sparse(), "queries are not an array of numbers"),
        (torch.eye(2, device="meta"), "queries are not an array of numbers"),
        ([torch.ones(1), torch.ones(2)], "queries are not an array of numbers"),
        (np.full((2, 2), 1e300), "queries contain NaN or infinity"),
        (torch.tensor(1.0), "queries have shape"),
        (torch.zeros(0, 3), "they are empty"),
    ],
    ids=range(14),
)
@pytest.mark.filterwarnings("error")
def test_invalid_matrices_are_refused_in_one_line(given: Any, message: str) -> None:
    for call in (lambda: nearest(given), lambda: score(given, [0])):
        with pytest.raises(UsageError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"k": k}, rf"k is {k!r}: it must be a whole number of at least 1") for k in (2.0, "5", None, 0)),
        *(({"tile": tile}, rf"tile is {tile!r}") for tile in (2.5, "5", 0)),
        ({"device": "cuda:77"}, "device 'cuda:77'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": None}, "unknown device None"),
    ],
)
def test_options_of_nearest(rows: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nearest(rows, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"resamples": value}, "resamples is .*: it must be a whole number of at least 1")
            for value in (0, -1, 2.5, "10", None)
        ),
        *(({"seed": value}, "seed is .*: it must be a whole number of at least 0") for value in (-1, 0.5, "1", None)),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_options_of_score(rows: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        score(rows, LABELS, **options)


def test_devices_as_torch_has_them(rows: np.ndarray) -> None:
    expected = nearest(rows).indices
    for device in ("cpu", "auto", torch.device("cpu")):
        assert (nearest(rows, device=device).indices == expected).all()


def text(labels: np.ndarray) -> list[str]:
    return [f"class {label}" for label in labels]


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        torch.tensor,
        lambda labels: [torch.tensor(label) for label in labels],
        lambda labels: labels.astype(np.uint8),
        lambda labels: labels.astype(object),
        lambda labels: pandas.Series(labels, index=labels),
        lambda labels: pandas.Series(labels, dtype="Int64"),
        lambda labels: pandas.Series(labels, dtype="category"),
        lambda labels: pandas.Series(text(labels), dtype="string"),
        lambda labels: pandas.Series(text(labels), dtype="category"),
        lambda labels: np.array(text(labels)).astype(np.bytes_),
        lambda labels: pandas.Index(text(labels)),
    ],
    ids=range(13),
)
def test_labels_of_any_kind(rows: np.ndarray, kind: Callable[[np.ndarray], Any]) -> None:
    expected = score(rows, LABELS, resamples=10)
    found = score(rows, kind(LABELS), resamples=10)
    assert found.values == expected.values and (found.classes == expected.classes).all()


def test_two_classes_may_be_true_and_false(rows: np.ndarray) -> None:
    assert score(rows, LABELS > 2, resamples=10).values == score(rows, (LABELS > 2).astype(int), resamples=10).values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: [*labels[:3], None, *labels[4:]], "query label 3: the label is missing"),
        (
            lambda labels: pandas.Series([*labels[:3], None, *labels[4:]], dtype="Int64"),
            "query labels are float64: they must be class numbers",
        ),
        (lambda labels: [*text(labels[:3]), "nan", *text(labels[4:])], "query label 3: the label is missing"),
        (lambda labels: [*text(labels[:3]), "", *text(labels[4:])], "query label 3: the label is missing"),
        (lambda labels: np.ma.array(labels, mask=labels == 4), "query label 4: the label is missing"),
        (lambda labels: labels - 1, "query label 0: the label -1 is negative"),
        (lambda labels: torch.tensor(labels - 1), "query label 0: the label -1 is negative"),
        (lambda labels: labels.astype(float), "query labels are float64: they must be class numbers"),
        (lambda labels: torch.tensor(labels).bfloat16(), "query labels are float32: they must be class numbers"),
        (
            lambda labels: np.eye(5)[labels],
            r"query labels have shape \(40, 5\): each of the 40 embeddings needs one label",
        ),
        (lambda labels: [[0]] * 39 + [[0, 1]], "query labels are not a list of numbers or names"),
        (lambda labels: [{"label": 1}] * 40, "query label 0: the label is a dict"),
        (lambda labels: dict(enumerate(labels)), r"query labels have shape \(\)"),
        (lambda labels: None, r"query labels have shape \(\)"),
        (lambda labels: "a" * 40, r"query labels have shape \(\)"),
        (lambda labels: pandas.DataFrame({"label": labels}), r"query labels have shape \(40, 1\)"),
    ],
    ids=range(16),
)
def test_invalid_labels_are_refused_in_one_line(
    rows: np.ndarray, change: Callable[[np.ndarray], Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        score(rows, change(LABELS))
    assert "\n" not in str(caught.value)


def test_normalize_divides_each_row_by_its_norm(rows):
    lengths = np.random.default_rng(0).uniform(0.1, 9, (len(rows), 1))
    with pytest.raises(UsageError, match="pass normalize=True"):
        nearest(rows * lengths)
    found, expected = nearest(rows * lengths, normalize=True), nearest(rows)
    assert np.array_equal(found.indices, expected.indices)
    assert np.allclose(found.similarities, expected.similarities, atol=1e-6)
    assert score(rows * lengths, LABELS, normalize=True).values == pytest.approx(score(rows, LABELS).values)
    with pytest.raises(UsageError, match="zero"):
        nearest(np.vstack([rows, np.zeros_like(rows[:1])]), normalize=True)
