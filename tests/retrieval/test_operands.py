from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval.exact import similarities
from embedcore.retrieval.operands import Margin, margin, prepare
from embedcore.retrieval.tiles import decode, encode, floor_to_bf16, kth_best_bound, multiply

FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@pytest.mark.parametrize("precision", ["bf16", "f32"])
@pytest.mark.parametrize("cone", [0.0, 2.0, 30.0])
@pytest.mark.parametrize("dim", [3, 96, 513])
def test_products_are_within_the_margin(embeddings, precision, cone, dim):
    import torch

    rows, others = embeddings(80, dim, cone=cone), embeddings(70, dim, seed=1, cone=cone)
    centre = others.mean(axis=0, dtype=np.float32)
    left, right = prepare(rows, centre, precision), prepare(others, centre, precision).as_right()
    raw = multiply(left.matrix, right.matrix, torch.empty(80 * 70, dtype=left.matrix.dtype))
    wide = centre.astype(np.float64)
    true = rows.astype(np.float64) @ others.astype(np.float64).T - wide @ wide
    bound = margin(left, right)
    approximate = decode(raw)
    assert (np.abs(approximate - true) <= bound.absolute + bound.relative * np.abs(approximate)).all()
    # Two roundings of bfloat16, as large as the rows are far from the centre: the margin is not merely generous.
    assert bound.absolute < (0.02 if precision == "bf16" else 0.001)


@pytest.mark.parametrize("precision", ["bf16", "f32"])
@pytest.mark.parametrize("cone", [0.0, 2.0, 30.0])
def test_products_are_between_the_bounds_of_their_similarities(embeddings, precision, cone):
    import torch

    rows, others = embeddings(80, 96, cone=cone), embeddings(70, 96, seed=1, cone=cone)
    centre = others.mean(axis=0, dtype=np.float32)
    left, right = prepare(rows, centre, precision), prepare(others, centre, precision).as_right()
    raw = decode(multiply(left.matrix, right.matrix, torch.empty(80 * 70, dtype=left.matrix.dtype)))
    true = similarities(rows, others, np.tile(np.arange(70), (80, 1)))
    low, high = margin(left, right).around(true)
    assert ((low <= raw) & (raw <= high)).all()
    assert (decode(encode(low)) == low).all() or precision == "f32"
    assert (high - low).max() < (0.05 if precision == "bf16" else 0.002)


@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_all_products_are_above_minus_infinity_and_none_above_infinity(precision):
    low, high = Margin(0.1, 0.0, precision).around(np.array([-np.inf, np.inf]))
    assert low[0] == -np.inf and high[0] < -(2.0**120) and low[1] > 2.0**120 and high[1] == np.inf


def test_a_narrow_cone_has_a_small_margin(embeddings):
    wide, narrow = embeddings(500, 64), embeddings(500, 64, cone=5.0)
    bounds = []
    for rows in (wide, narrow):
        operand = prepare(rows, rows.mean(axis=0, dtype=np.float32), "bf16")
        bounds.append(margin(operand, operand.as_right()).absolute)
    assert bounds[1] < bounds[0] / 3


@pytest.mark.parametrize(("precision", "relative"), [("bf16", 2.0**-8), ("f32", 0.0)])
def test_nothing_is_cut_where_no_kth_best_is_known(precision, relative):
    assert Margin(0.1, relative, precision).cut(np.array([-np.inf], dtype=np.float32)).tolist() == [-np.inf]


@given(st.lists(FINITE, min_size=1, max_size=50))
def test_floor_to_bf16_is_the_next_lower_bf16(values):
    import torch

    array = np.array(values, dtype=np.float32)
    down = floor_to_bf16(array)
    assert (down <= array).all()
    assert (decode(encode(down)) == down).all()
    above = torch.nextafter(torch.from_numpy(down).bfloat16(), torch.tensor(torch.inf).bfloat16()).float().numpy()
    assert (above > array).all()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(1, 5),
    columns=st.integers(1, 300),
    k=st.integers(1, 9),
    shift=st.sampled_from([-2.0, 0.0, 2.0]),
    bits=st.booleans(),
)
def test_bound_of_the_kth_best_is_an_entry_not_above_it(seed, rows, columns, k, shift, bits):
    import torch

    tile = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) + shift
    tile = tile.bfloat16().float()
    raw = tile.bfloat16().view(torch.int16).numpy() if bits else tile.numpy()
    bound = kth_best_bound(raw, k)
    if columns < k:
        assert (bound == -np.inf).all()
    else:
        entries = tile.numpy()
        assert (bound <= np.sort(entries, axis=1)[:, -k]).all()
        assert (entries == bound[:, None]).any(axis=1).all()
