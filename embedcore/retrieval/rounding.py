"""First-pass products in float32 or bfloat16, and how far such a product can be from the true similarity.

The first pass only has to name candidates. It may therefore be rough, as long as the roughness has a proven bound:
a candidate list with that much margin holds every true neighbour, and the float64 pass decides the order.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float32]
RawTile = npt.NDArray[Any]  # float32, or int16 holding the bits of bfloat16
Precision = Literal["bf16", "f32"]

_CHUNK = 4096
# Twice the unit roundoff of float32, so that the bound also holds for units that truncate while they accumulate.
_ACCUMULATE = 2.0**-23
# Half the spacing of bfloat16 (8 significant bits), relative to the value.
_BF16_HALF_STEP = 2.0**-8


@dataclass(frozen=True)
class Margin:
    """How far below an approximate k-th best a true neighbour's approximate similarity can lie.

    With |approximate - true| <= ``absolute`` before the result is rounded to the output type, and a relative rounding
    of at most ``relative`` after it, the true k-th best is at least ``t - relative*|t| - absolute`` when the
    approximate k-th best is ``t``; a true neighbour is then computed to at least ``absolute`` less than that, and
    rounding to nearest keeps that order.
    """

    absolute: float
    relative: float
    precision: Precision

    def cut(self, kth: FloatArray) -> FloatArray:
        """The lowest approximate similarity that a candidate may have, rounded down to the first pass's type."""
        wide = kth.astype(np.float64)
        lowest = wide - self.relative * np.abs(wide) - 2.0 * self.absolute
        down = np.nextafter(lowest.astype(np.float32), np.float32(-np.inf))
        return floor_to_bf16(down) if self.precision == "bf16" else down


@dataclass(frozen=True)
class Operand:
    """Rows as the first pass multiplies them: ``matrix`` [n, d], the largest row norm and the largest rounding error."""

    matrix: torch.Tensor
    norm: float
    error: float
    precision: Precision


def prepare(rows: FloatArray, precision: Precision, order: npt.NDArray[np.int64] | None = None) -> Operand:
    """Round ``rows`` [n, d] for the first pass, in ``order`` if one is given, and measure the rounding error."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.empty(rows.shape, dtype=dtype)
    norm = error = 0.0
    for start in range(0, len(rows), _CHUNK):
        stop = min(start + _CHUNK, len(rows))
        chunk = rows[start:stop] if order is None else rows[order[start:stop]]
        matrix[start:stop] = torch.from_numpy(np.ascontiguousarray(chunk))
        norm = max(norm, _largest_norm(chunk))
        if precision == "bf16":
            error = max(error, _largest_norm(matrix[start:stop].float().numpy() - chunk))
    return Operand(matrix, norm, error, precision)


def margin(queries: Operand, references: Operand) -> Margin:
    """The margin of products between two operands.

    Cauchy-Schwarz bounds what rounding the rows does, |q·r - q'·r'| <= |q - q'| |r| + |q'| |r - r'|; the standard
    bound n·u / (1 - n·u) for an inner product in any order of summation (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1) bounds what accumulating in float32 does. The float64 similarity that decides the order
    has the same bound with its own unit roundoff.
    """
    dim = queries.matrix.shape[1]
    rounded_q, rounded_r = queries.norm + queries.error, references.norm + references.error
    rows = queries.error * references.norm + rounded_q * references.error
    absolute = rows + rounded_q * rounded_r * (accumulation(dim, _ACCUMULATE) + accumulation(dim, 2.0**-53)) + 1e-30
    relative = _BF16_HALF_STEP if queries.precision == "bf16" else 0.0
    return Margin(absolute, relative, queries.precision)


def accumulation(dim: int, unit: float) -> float:
    """Largest relative error of an inner product of ``dim`` terms whose operations each round by at most ``unit``."""
    return dim * unit / (1.0 - dim * unit)


def multiply(queries: torch.Tensor, references: torch.Tensor, out: torch.Tensor) -> RawTile:
    """``queries @ references.T`` into the front of the flat buffer ``out``; the tile as a NumPy view of that buffer."""
    import torch

    rows, columns = len(queries), len(references)
    tile = out[: rows * columns].view(rows, columns)
    torch.mm(queries, references.T, out=tile)
    raw: RawTile = (tile.view(torch.int16) if tile.dtype == torch.bfloat16 else tile).numpy()
    return raw


def decode(raw: RawTile) -> FloatArray:
    """The float32 values of a raw tile; float32 comes back as it is."""
    if raw.dtype == np.float32:
        return raw
    wide = raw.view(np.uint16).astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def encode(values: FloatArray) -> npt.NDArray[np.int16]:
    """The bits of bfloat16 numbers given as float32."""
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(np.int16)


def hide(raw: RawTile, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> None:
    """Set entries of a raw tile to minus infinity."""
    raw[rows, columns] = -np.inf if raw.dtype == np.float32 else encode(np.array([-np.inf], dtype=np.float32))[0]


def above(raw: RawTile, row_cuts: FloatArray, column_cuts: FloatArray | None = None) -> npt.NDArray[np.int64]:
    """Flat positions of entries that reach the cut of their row or, if given, of their column.

    Positive bfloat16 numbers are in the order of their bits read as integers, and all negative ones read as negative
    integers: while the cuts are positive, integers can be compared, which is several times faster.
    """
    lowest = min(float(row_cuts.min()), np.inf if column_cuts is None else float(column_cuts.min()))
    if raw.dtype == np.int16 and lowest > 0:
        hits = raw >= encode(row_cuts)[:, None]
        if column_cuts is not None:
            hits |= raw >= encode(column_cuts)[None, :]
    else:
        values = decode(raw)
        hits = values >= row_cuts[:, None]
        if column_cuts is not None:
            hits |= values >= column_cuts[None, :]
    return np.flatnonzero(hits)


def kth_best_bound(raw: RawTile, k: int) -> FloatArray:
    """A lower bound of each row's ``k``-th best entry (minus infinity where the row has fewer than ``k``).

    The k-th best of the maxima of groups is such a bound, and close to the k-th best when there are many more groups
    than k; it costs a fraction of sorting the row. For bfloat16 bits the integer maximum of a group without positive
    entries is just one of its entries, which is a looser bound but still one.
    """
    rows, columns = raw.shape
    if columns < k:
        return np.full(rows, -np.inf, dtype=np.float32)
    size = 1
    while size < 32 and columns // (2 * size) >= 4 * k:
        size *= 2
    groups = columns // size
    maxima = raw[:, : groups * size].reshape(rows, size, groups).max(axis=1)
    return np.partition(decode(maxima), groups - k, axis=1)[:, groups - k]


def floor_to_bf16(values: FloatArray) -> FloatArray:
    """Round float32 numbers down (towards minus infinity) to bfloat16, kept as float32."""
    bits = values.view(np.uint32)
    away = np.where((bits >> np.uint32(31)) != 0, np.uint32(0xFFFF), np.uint32(0))
    infinite = np.isinf(values)
    down = ((bits + np.where(infinite, np.uint32(0), away)) & np.uint32(0xFFFF0000)).astype(np.uint32)
    return down.view(np.float32)


@functools.cache
def bf16_pays() -> bool:
    """Whether this machine multiplies bfloat16 matrices well faster than float32 (a probe of some milliseconds).

    It only chooses between two exact ways, so a wrong answer costs time, never a result. Without oneDNN a product of
    bfloat16 might not accumulate in float32, so it is then not considered.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        block = torch.full((1024, 512), 0.03, dtype=dtype)
        torch.mm(block, block.T)
        rounds = []
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(block, block.T)
            rounds.append(time.perf_counter() - start)
        seconds[dtype] = min(rounds)
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


def _largest_norm(rows: FloatArray) -> float:
    squares = np.einsum("ij,ij->i", rows, rows)
    # The float32 sum of squares is itself rounded; a thousandth more than covers it.
    return float(np.sqrt(squares.max())) * 1.001
