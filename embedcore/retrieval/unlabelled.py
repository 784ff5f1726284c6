"""Measures of embeddings without labels: whether a view of an image finds it, near-duplicates, effective rank."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.search import nearest
from embedcore.retrieval.tiles import FloatArray

NEAR = 0.95
"""Cosine from which two images count as near-duplicates."""
FIVE = 5
_ROWS = 4096  # centred at once


class FoundByViews(NamedTuple):
    """Whether each view finds its own image, bool [n]."""

    first: npt.NDArray[np.bool_]
    """As the nearest."""
    among_five: npt.NDArray[np.bool_]


def found_by_views(views: FloatArray, images: FloatArray, *, device: str = "cpu") -> FoundByViews:
    """Search the images with a view of each.

    Args:
        views: float32 [n, d], rows L2-normalised; row i is a view of image i.
        images: float32 [n, d], likewise.
        device: device of the search, see `nearest`.
    """
    own = nearest(views, images, FIVE, device=device).indices == np.arange(len(images))[:, None]
    return FoundByViews(own[:, 0], own.any(axis=1))


def near_duplicates(images: FloatArray, *, device: str = "cpu") -> float:
    """Return the share of images (float32 [n, d], n >= 2) whose nearest other one has a cosine of `NEAR` or more."""
    return float((nearest(images, k=1, device=device).similarities[:, 0] >= NEAR).mean())


def effective_rank(images: FloatArray) -> float:
    """Return the effective rank of the covariance of the embeddings [n, d]: a number from 1 to d.

    exp(H), where H is the entropy of the squared singular values of the centred embeddings, divided by their sum (Roy
    and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007). It is d if the variance is
    equal in all directions, and 1 if it has one direction or is below the rounding of the embeddings.

    >>> round(effective_rank(np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)), 9)
    2.0
    """
    n, d = images.shape
    mean = images.mean(axis=0, dtype=np.float64)
    if n < d:
        centred = images - mean
        products = centred @ centred.T
    else:
        blocks = (images[start : start + _ROWS] - mean for start in range(0, n, _ROWS))
        products = sum((block.T @ block for block in blocks), np.zeros((d, d)))
    squares = np.linalg.eigvalsh(products).clip(min=0.0)
    if squares.sum() <= n * np.finfo(np.float32).eps ** 2:
        return 1.0
    shares = squares[squares > 0] / squares.sum()
    return float(np.exp(-(shares @ np.log(shares))))
