"""A small sketch of embeddings, to compare those of two runs without storing them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SKETCH_IMAGES = 8
SKETCH_DIM = 64


def sketch_of(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a random projection float32 [8, 64] of 8 evenly spaced embeddings of [n, dim].

    The projection is Gaussian with variance 1/64, so the expected squared length of a projected embedding is 1
    (Johnson and Lindenstrauss, 1984). It depends on ``dim`` alone. With fewer than 8 images some are used twice.
    """
    n, dim = embeddings.shape
    chosen = np.linspace(0, n - 1, SKETCH_IMAGES).round().astype(np.int64)
    projection = np.random.Generator(np.random.PCG64(0)).standard_normal((dim, SKETCH_DIM)) / np.sqrt(SKETCH_DIM)
    return np.asarray(embeddings[chosen].astype(np.float64) @ projection, dtype=np.float32)
