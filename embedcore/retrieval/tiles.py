"""Tiles of first-pass products, in float32 or the bits of bfloat16, and their entries above a cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Found = tuple[IntArray, DoubleArray]  # indices and similarities of neighbours, each [rows, k]
RawTile = npt.NDArray[Any]  # float32, or the bits of bfloat16 as int16

_BLOCK = 2**22  # float64 numbers of a block of rows


def multiply(queries: torch.Tensor, references: torch.Tensor, out: torch.Tensor) -> RawTile:
    """Write ``queries @ references.T`` to the front of the flat buffer ``out``; return it as a NumPy view."""
    import torch

    rows, columns = len(queries), len(references)
    tile = out[: rows * columns].view(rows, columns)
    torch.mm(queries, references.T, out=tile)
    raw: RawTile = (tile.view(torch.int16) if tile.dtype == torch.bfloat16 else tile).numpy()
    return raw


def decode(raw: RawTile) -> FloatArray:
    """Return the float32 values of a raw tile; float32 as it is."""
    if raw.dtype == np.float32:
        return raw
    wide = raw.view(np.uint16).astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def encode(values: FloatArray) -> npt.NDArray[np.int16]:
    """Return the bits of bfloat16 numbers that are stored as float32."""
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(np.int16)


def above(
    raw: RawTile, row_cuts: FloatArray, column_cuts: FloatArray | None = None
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return rows, columns and values of the entries that reach the cut of their row or, if given, of their column.

    bfloat16 is compared as integers, several times faster than as numbers. With positive cuts the bits are compared
    directly: positive numbers are in the order of their bits, and negative numbers have negative bits.
    """
    row_keys: RawTile = row_cuts
    column_keys: RawTile | None = column_cuts
    keys = raw
    if raw.dtype == np.int16:
        lowest = min(float(row_cuts.min()), np.inf if column_cuts is None else float(column_cuts.min()))
        row_keys = _ordered(encode(row_cuts))
        column_keys = None if column_cuts is None else _ordered(encode(column_cuts))
        keys = raw if lowest > 0 else _ordered(raw)
    hits = keys >= row_keys[:, None]
    if column_keys is not None:
        hits |= keys >= column_keys[None, :]
    flat = np.flatnonzero(hits)
    return *np.divmod(flat, raw.shape[1]), decode(raw.reshape(-1)[flat])


def kth_best_bound(raw: RawTile, k: int) -> FloatArray:
    """Return a lower bound of each row's ``k``-th best entry; minus infinity for fewer than ``k`` columns.

    It is the k-th best of the maxima of groups: close to the k-th best entry if there are many more groups than k, and
    much faster than sorting the row.
    """
    rows, columns = raw.shape
    if columns < k:
        return np.full(rows, -np.inf, dtype=np.float32)
    size = 1
    while size < 32 and columns // (2 * size) >= 4 * k:
        size *= 2
    groups = columns // size
    keys = _ordered(raw) if raw.dtype == np.int16 else raw
    maxima = keys[:, : groups * size].reshape(rows, size, groups).max(axis=1)
    if maxima.dtype == np.int16:
        maxima = decode(_ordered(maxima))
    return np.partition(maxima, groups - k, axis=1)[:, groups - k]


def _ordered(bits: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return integers in the order of the bfloat16 numbers with these bits; its own inverse."""
    keys = bits >> np.int16(15)
    keys &= np.int16(0x7FFF)
    keys ^= bits
    return keys


def floor_to_bf16(values: FloatArray) -> FloatArray:
    """Round float32 numbers down (towards minus infinity) to bfloat16, stored as float32."""
    away = np.where((values < 0) & np.isfinite(values), np.uint32(0xFFFF), np.uint32(0))
    down: FloatArray = ((values.view(np.uint32) + away) & np.uint32(0xFFFF0000)).view(np.float32)
    return down


def position_in_runs(lengths: IntArray) -> IntArray:
    """Return 0, 1, 2, … for each run: ``[3, 2]`` → ``[0, 1, 2, 0, 1]``."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Return the slices of blocks of rows, for converting matrices [rows, width] to float64 with bounded memory."""
    height = max(1, _BLOCK // width)
    return (slice(start, min(start + height, rows)) for start in range(0, rows, height))


def unfilled(rows: int, k: int) -> Found:
    """Return uninitialised neighbours [rows, k]."""
    return np.empty((rows, k), dtype=np.int64), np.empty((rows, k), dtype=np.float64)
