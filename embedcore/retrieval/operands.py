"""Operands of the first pass in float32 or bfloat16, and the error bound of their products.

The first pass only proposes candidates. Its products may be approximate if their error has a proven bound: candidates
within that margin include every true neighbour, and the float64 pass decides the order.

Embeddings of one model tend to lie in a narrow cone, for example with all cosines between 0.5 and 1. With a vector m
common to all rows and y = x - m,

    x·x' = m·m + (y·y' + m·y + m·y')

so the part in brackets ranks exactly as x·x' does, while its terms, and the error of an approximate product, are small
for a narrow cone. The part in brackets is an inner product of width d + 4: [y, c, e, 1, 1]·[y', 1, 1, c', e'], where
c + e is m·y in two parts, since one bfloat16 is too imprecise for it.
"""

from __future__ import annotations

import functools
import timeit
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray, floor_to_bf16

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "f32"]

EXTRA_COLUMNS = 4
_CHUNK = 1024
# Twice the unit roundoff of float32: the bound also holds for hardware that truncates while it accumulates.
_ACCUMULATE = 2.0**-23
# Half the spacing of bfloat16 (8 significant bits), relative to the value.
_BF16_HALF_STEP = 2.0**-8
# Covers the error of norms, which are computed in float32.
_INFLATE = 1.001
# Covers the error of m·m in float64, for rows of up to 2^14 numbers.
_BASE_ERROR = 2.0**-38


@dataclass(frozen=True)
class Margin:
    """The distance below the approximate k-th best at which a true neighbour's approximate similarity can be.

    absolute: the largest |approximate - true| before rounding to the output type · relative: the largest relative error
    of that rounding. With ``t`` the approximate k-th best, the true one is at least ``t - relative*|t| - absolute``;
    a true neighbour is computed to at least ``absolute`` less than that, and rounding to nearest keeps that order.
    base: m·m, which approximate similarities lack.
    """

    absolute: float
    relative: float
    precision: Precision
    base: float = 0.0

    def cut(self, kth: FloatArray) -> FloatArray:
        """Return the lowest approximate similarity of a candidate, rounded down to the first pass's type."""
        wide = kth.astype(np.float64)
        lowest = wide * (1.0 - np.copysign(self.relative, wide)) - 2.0 * self.absolute
        down = np.nextafter(lowest.astype(np.float32), np.float32(-np.inf))
        return floor_to_bf16(down) if self.precision == "bf16" else down

    def around(self, similarities: DoubleArray) -> tuple[FloatArray, FloatArray]:
        """Return a lower and an upper bound of the approximate similarity of pairs with these true ones.

        A pair that is computed above the upper bound is more similar, one below the lower bound less.
        """
        shifted, distance = similarities - self.base, self.absolute + _BASE_ERROR
        low = np.nextafter((shifted - distance).astype(np.float32), np.float32(-np.inf))
        high = np.nextafter((shifted + distance).astype(np.float32), np.float32(np.inf))
        # Rounding to nearest keeps the order, so bounds in the output type are enough.
        return (floor_to_bf16(low), -floor_to_bf16(-high)) if self.precision == "bf16" else (low, high)


@dataclass(frozen=True)
class Operand:
    """Rows prepared for the first pass, with the quantities that bound the error of their products.

    matrix: [n, d + 4] · precision: its type · norm: largest |x - m| · error: largest distance of a rounded row from
    x - m · offset: largest |m·(x - m)| · offset_error: largest error of that in its two parts · row_norm: largest |x|.
    base: m·m.
    """

    matrix: torch.Tensor
    precision: Precision
    norm: float
    error: float
    offset: float
    offset_error: float
    row_norm: float
    base: float

    def as_right(self) -> Operand:
        """Return the same rows arranged for the right side of the product."""
        matrix = self.matrix.clone()
        matrix[:, -4:-2], matrix[:, -2:] = self.matrix[:, -2:], self.matrix[:, -4:-2]
        return replace(self, matrix=matrix)


def centre_of(rows: FloatArray) -> FloatArray:
    """Return the mean row [d], of a sample for many rows: the margin is valid for any centre."""
    mean: FloatArray = rows[:: max(1, len(rows) // 4096)].mean(axis=0, dtype=np.float32)
    return mean


def prepare(
    rows: FloatArray,
    centre: FloatArray,
    precision: Precision,
    order: IntArray | None = None,
    pool: Executor | None = None,
) -> Operand:
    """Round ``rows`` [n, d] minus ``centre`` [d] for the left side of the product, in ``order`` if given."""
    import torch

    n, dim = rows.shape
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.empty((n, dim + EXTRA_COLUMNS), dtype=dtype)
    wide_centre = centre.astype(np.float64)
    base = float(wide_centre @ wide_centre)

    def fill(start: int) -> tuple[float, ...]:
        part = slice(start, min(start + _CHUNK, n))
        chunk = rows[part] if order is None else rows[order[part]]
        along = torch.from_numpy(np.einsum("ij,j->i", chunk, wide_centre) - base)
        less = torch.from_numpy(chunk - centre)
        block = matrix[part]
        block[:, :dim] = less
        block[:, dim] = along
        block[:, dim + 1] = along - block[:, dim].double()
        block[:, dim + 2 :] = 1
        rest = along - block[:, dim].double() - block[:, dim + 1].double()
        return (
            _largest_norm(less.numpy()),
            _largest_norm((block[:, :dim].float() - less).numpy()) if precision == "bf16" else 0.0,
            float(along.abs().max()),
            float(rest.abs().max()),
            _largest_norm(chunk),
        )

    starts = range(0, n, _CHUNK)
    sizes = [fill(start) for start in starts] if pool is None else list(pool.map(fill, starts))
    norm, error, offset, offset_error, row_norm = (max(column) for column in zip(*sizes, strict=True))
    # The subtraction was rounded to float32; the offsets were computed in float64.
    error += norm * 2.0**-23
    offset_error += 2.0 * accumulation(dim, 2.0**-53)
    return Operand(matrix, precision, norm, error, offset * _INFLATE, offset_error, row_norm, base)


def margin(left: Operand, right: Operand) -> Margin:
    """Return the margin of products of two operands.

    Cauchy-Schwarz bounds what rounding the rows does, |y·y' - ŷ·ŷ'| <= |y - ŷ| |y'| + |ŷ| |y' - ŷ'|; the standard
    bound n·u / (1 - n·u), relative to the sum of the terms' sizes, for an inner product in any order of summation
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) bounds what accumulating in float32 does. The
    float64 similarity that decides the order has the same bound with its own unit roundoff.
    """
    width = left.matrix.shape[1]
    rounded_left, rounded_right = left.norm + left.error, right.norm + right.error
    rounding = left.error * rounded_right + rounded_left * right.error
    # The small second parts of the offsets are covered by doubling the first.
    terms = rounded_left * rounded_right + 2.0 * (left.offset + right.offset)
    deciding = accumulation(width, 2.0**-53) * left.row_norm * right.row_norm
    rounding += left.offset_error + right.offset_error
    absolute = rounding + accumulation(width, _ACCUMULATE) * terms + deciding + 1e-30
    relative = _BF16_HALF_STEP if left.precision == "bf16" else 0.0
    return Margin(absolute, relative, left.precision, left.base)


def accumulation(dim: int, unit: float) -> float:
    """Return the largest relative error of an inner product of ``dim`` terms with unit roundoff ``unit``."""
    return dim * unit / (1.0 - dim * unit)


@functools.cache
def bf16_pays() -> bool:
    """Return whether this machine multiplies bfloat16 matrices clearly faster than float32 (a probe of milliseconds).

    Both lead to the same result; a wrong answer only costs time. False without oneDNN, as products of bfloat16 might
    then not accumulate in float32.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        block = torch.full((1024, 512), 0.03, dtype=dtype)
        # The first of the six is the warm-up.
        seconds[dtype] = min(timeit.repeat(functools.partial(torch.mm, block, block.T), number=1, repeat=6))
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


def _largest_norm(rows: FloatArray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max())) * _INFLATE
