"""Two models on the same queries, against counting by hand and the statistics of a comparison."""

from __future__ import annotations

import numpy as np
import pytest

from embedcore.compare import statistics
from embedcore.report.gallery.paired import MOST, paired_comparisons


@pytest.mark.parametrize("classes", [40, 8])
def test_each_pair_has_its_counts_and_its_difference(classes: int) -> None:
    rng = np.random.default_rng(0)
    class_of = np.repeat(np.arange(classes), 6)
    right = {f"m{n}": rng.random(len(class_of)) < share for n, share in enumerate((0.9, 0.6, 0.5))}
    found = paired_comparisons(right, class_of)
    assert [(pair.first, pair.second) for pair in found] == [(0, 1), (0, 2), (1, 2)]
    for pair in found:
        one, other = right[f"m{pair.first}"], right[f"m{pair.second}"]
        assert pair.first_only == sum(a and not b for a, b in zip(one, other, strict=True))
        assert pair.second_only == sum(b and not a for a, b in zip(one, other, strict=True))
        assert pair.difference == pytest.approx(one.mean() - other.mean(), abs=1e-4)
        assert pair.low < pair.difference < pair.high
    assert found[0].p < 0.01 < found[2].p
    if classes >= 20:
        of_class = np.bincount(class_of, right["m0"].astype(int) - right["m1"].astype(int)).astype(np.int64)
        assert found[0].p == pytest.approx(statistics.sign_flips(of_class).p, rel=0.05)


def test_one_model_has_no_comparison_and_many_have_those_of_the_best() -> None:
    class_of = np.arange(30)
    assert paired_comparisons({"a": np.ones(30, dtype=bool)}, class_of) == []
    many = paired_comparisons({f"m{n}": np.arange(30) % (n + 2) > 0 for n in range(MOST + 3)}, class_of)
    assert len(many) == MOST * (MOST - 1) // 2 and max(pair.second for pair in many) == MOST - 1


def test_equal_models_do_not_differ() -> None:
    bits = np.arange(40) % 3 > 0
    (pair,) = paired_comparisons({"a": bits, "b": bits.copy()}, np.arange(40) // 2)
    assert (pair.first_only, pair.second_only, pair.difference, pair.p) == (0, 0, 0.0, 1.0)
