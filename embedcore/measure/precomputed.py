"""Precomputed embeddings, read from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcore.embed.npy import read_npy
from embedcore.errors import UsageError, WeightsDamaged
from embedcore.measure.outcome import NotFiniteError
from embedcore.plain import one_line
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.weights import Weights, own_weights


def read_precomputed(own_model: OwnModel, n: int) -> tuple[NDArray[np.float32], Weights]:
    """Return the embeddings of a dataset's ``n`` images, float32 [n, dim] with rows of length 1, and their file.

    The file contains floats [n, dim] as ``numpy.save`` writes them; no code in it is run. Raises WeightsDamaged for any
    other content, NotFiniteError for NaN, infinity or a row of zeros.
    """
    weights = own_weights(own_model)
    where = f"{own_model.name}: {weights.path}"
    try:
        rows = read_npy(Path(str(weights.path)))
    except (OSError, UsageError) as error:
        raise WeightsDamaged(f"{own_model.name}: {one_line(str(error))}") from error
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise WeightsDamaged(f"{where} has the shape {list(rows.shape)}: it must be [n, dim], one row per image")
    if rows.dtype.kind != "f":
        raise WeightsDamaged(f"{where} has the dtype {rows.dtype}: it must be floats")
    if len(rows) != n:
        listed = "in the order of `embedcore check DATASET --list` with the options of this run"
        raise WeightsDamaged(f"{where} has {len(rows)} rows and the dataset {n} images: one row each, {listed}")
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        bad = int(np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))[0])
        raise NotFiniteError(f"{where} contains NaN, infinity or zero vectors, the first in row {bad} (counted from 0)")
    return (wide / lengths).astype(np.float32), weights
