"""Conversion of embeddings and labels from callers to arrays for the search and the metrics."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcore.errors import UsageError
from embedcore.images.labels import class_names
from embedcore.plain import one_line
from embedcore.retrieval.tiles import FloatArray

_NORM_SLACK = 1e-3
_HALF_SLACK = 2**-8  # the relative rounding error of bfloat16


def unit_rows(rows: Any, name: str, *, normalize: bool = False) -> FloatArray:
    """Return embeddings as float32 [n, d], C-contiguous, rows of length 1.

    Takes arrays, nested lists, DataFrames and torch tensors of any device and precision, with or without gradients.
    ``normalize``: divide each row by its norm. Rows in half precision are always normalised again, to correct their
    rounding.

    Raises UsageError, with ``name``, for embeddings that are not two-dimensional, empty or not numbers, and for rows
    that are not finite, zero or, without ``normalize``, not L2-normalised.
    """
    array = _numbers(rows, name)
    if array.ndim != 2:
        raise UsageError(f"{name} have shape {array.shape}: embeddings must be two-dimensional, [rows, width]")
    if 0 in array.shape:
        raise UsageError(f"{name} have shape {array.shape}: they are empty")
    squares = np.einsum("ij,ij->i", array, array, dtype=np.float32)
    norms = np.sqrt(squares)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise UsageError(f"{name} contain NaN or infinity, first in row {bad[0]} ({len(bad)} of {len(array)} rows)")
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise UsageError(
            f"{name} contain zero vectors, first in row {zero[0]} ({len(zero)} of {len(array)} rows): "
            "they have no direction, leave them out"
        )
    is_half = _is_half(rows)
    off = np.flatnonzero(np.abs(norms - 1) > (_HALF_SLACK if is_half else _NORM_SLACK))
    if len(off) and not normalize:
        raise UsageError(
            f"{name} are not L2-normalised: row {off[0]} has norm {norms[off[0]]:.4g} "
            f"({len(off)} of {len(array)} rows); pass normalize=True, or divide each row by its norm"
        )
    return array / norms[:, None] if is_half or normalize else array


def labels_of(labels: Any, rows: int, side: str) -> npt.NDArray[Any]:
    """Return the labels of one side [rows] as int64 or text. Raises UsageError, with ``side``."""
    try:
        array = np.asanyarray(_on_cpu(labels))  # a masked array stays one
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{side} labels are not a list of numbers or names: {one_line(str(error))[:100]}") from error
    if array.shape != (rows,):
        raise UsageError(f"{side} labels have shape {array.shape}: each of the {rows} embeddings needs one label")
    is_plain = array.dtype.kind in "biu" and not np.ma.is_masked(array)
    if is_plain or (array.dtype.kind == "O" and all(isinstance(label, numbers.Integral) for label in array)):
        whole = np.asarray(array).astype(np.int64)
        negative = np.flatnonzero(whole < 0)[:1]
        class_names(whole[negative], lambda _: f"{side} label {negative[0]}")  # raises for a negative label
        return whole
    if array.dtype.kind in "fc":
        raise UsageError(f"{side} labels are {array.dtype}: they must be class numbers (integers) or names (text)")
    return np.array(class_names(array, lambda index: f"{side} label {index}"), dtype=np.str_)


def _numbers(rows: Any, name: str) -> FloatArray:
    """Return float32 numbers of any shape. Raises UsageError."""
    dtype = getattr(rows, "dtype", None)
    if "complex" in str(dtype):
        raise UsageError(f"{name} are {dtype}: they must be real numbers")
    try:
        given = [_on_cpu(row) for row in rows] if isinstance(rows, list | tuple) else _on_cpu(rows)
        with np.errstate(over="ignore"):  # too large numbers become infinity, which is refused
            return np.ascontiguousarray(given, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} are not an array of numbers: {one_line(str(error))[:100]}") from error


def _on_cpu(given: Any) -> Any:
    """Return a torch tensor as an array (bfloat16 as float32); anything else as it is."""
    if not hasattr(given, "detach"):
        return given
    tensor = given.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _is_half(rows: Any) -> bool:
    if isinstance(rows, list | tuple) and rows:
        rows = rows[0]
    return str(getattr(rows, "dtype", "")).removeprefix("torch.") in ("float16", "bfloat16")
