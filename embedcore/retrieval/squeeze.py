"""Smaller forms of embeddings: centred, whitened, fewer dimensions, int8 and binary codes.

Everything is fitted on the references, which a database knows before it is asked. Each form is a pair of float32 sides
with rows of length 1, whose inner products are in the order of the similarities that a database computes, so that the
exact search and the metrics apply to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from embedcore.retrieval.inputs import unit_rows
from embedcore.retrieval.tiles import DoubleArray, FloatArray, row_blocks

SIZES = (256, 128, 64)
"""Numbers of dimensions that are kept, if an embedding has more."""
FULL = "float32"
"""Name of the form that is not squeezed."""

_NO_VARIANCE = 1e-10  # share of the largest variance from which on a direction has none
_LEVELS = 255
_STEPS = 2.0**11  # a component of a binary code has 11 bits, so that its square and sums of it are exact

Sides = tuple[FloatArray, FloatArray]
"""Queries [n_queries, d] and references [n_references, d], rows of length 1."""


@dataclass(frozen=True)
class Variant:
    """One form of the embeddings of a dataset."""

    name: str
    bytes: int
    """Bytes of one stored image, without what all images share (a mean, axes, ranges)."""
    make: Callable[[], Sides]
    """Raises UsageError if a row becomes zero, which has no direction."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Mean and principal axes of references [n, d]."""

    mean: DoubleArray
    """[d]"""
    variances: DoubleArray
    """[d], descending."""
    directions: DoubleArray
    """[d, d], a column for each variance."""
    shrinkage: float
    """Share of the average variance in `shrunk`, 0 to 1."""

    @property
    def rank(self) -> int:
        """Number of directions in which the references differ."""
        return int(np.count_nonzero(self.variances > _NO_VARIANCE * self.variances[0]))

    @property
    def shrunk(self) -> DoubleArray:
        """Variances [d] of the Ledoit-Wolf estimate, positive unless all references are equal."""
        mixed = (1 - self.shrinkage) * self.variances + self.shrinkage * self.variances.mean()
        positive: DoubleArray = np.maximum(mixed, _NO_VARIANCE * self.variances[0])
        return positive


def variants(queries: FloatArray, references: FloatArray) -> Iterator[Variant]:
    """Yield the forms of embeddings, the full one first.

    - ``centred``: minus the mean of the references.
    - ``whitened``: also divided by the standard deviation along each principal axis, from a covariance that is shrunk
      towards a multiple of the identity (`principal_axes`): more with fewer references per dimension.
    - ``pca K``: centred, and the first K principal axes; only if the references span more than K.
    - ``first K``: the first K dimensions as they are.
    - ``int8``: stored references in 256 levels, see `int8_references`; queries stay float32.
    - ``pca 128 int8``: both.
    - ``binary``: the signs of both sides, compared by Hamming distance; ``binary centred``: of centred embeddings.

    Args:
        queries: [n_queries, d], rows L2-normalised. Nothing is fitted on them.
        references: [n_references, d], likewise; for leave-one-out the queries themselves.
    """
    dim = references.shape[1]
    axes = principal_axes(references)
    mean = axes.mean.astype(np.float32)

    def both(form: Callable[[FloatArray], FloatArray]) -> Sides:
        stored = form(references)
        return stored if queries is references else form(queries), stored

    def along(matrix: DoubleArray) -> Sides:
        return both(lambda rows: unit(_projected(rows, axes.mean, matrix)))

    def first(size: int) -> Sides:
        return both(lambda rows: unit(rows[:, :size]))

    yield Variant(FULL, 4 * dim, lambda: (queries, references))
    yield Variant("centred", 4 * dim, lambda: both(lambda rows: unit(rows - mean)))
    if axes.rank:
        yield Variant("whitened", 4 * dim, lambda: along(axes.directions / np.sqrt(axes.shrunk)))
    sizes = [size for size in SIZES if size < dim]
    for size in sizes:
        if size < axes.rank:
            yield Variant(f"pca {size}", 4 * size, partial(along, axes.directions[:, :size]))
    for size in sizes:
        yield Variant(f"first {size}", 4 * size, partial(first, size))
    yield Variant("int8", dim, lambda: int8(queries, references))
    if min(dim, axes.rank) > 128:
        yield Variant("pca 128 int8", 128, lambda: int8(*along(axes.directions[:, :128])))
    code = -(-dim // 8)
    yield Variant("binary", code, lambda: both(signs))
    yield Variant("binary centred", code, lambda: both(lambda rows: signs(rows - mean)))


def unit(rows: FloatArray) -> FloatArray:
    """Return rows divided by their norms. Raises UsageError for zero rows."""
    return unit_rows(rows, "squeezed embeddings", normalize=True)


def principal_axes(references: FloatArray) -> Axes:
    """Return the principal axes of references [n, d], with the shrinkage of Ledoit and Wolf.

    Their estimate of a covariance (Journal of Multivariate Analysis 88, 2004) has the same axes; its variances are
    (1 - s) v + s m, where m is the mean of the variances v, and the share s minimises the expected squared error.

    >>> axes = principal_axes(np.array([[3, 0], [1, 0], [2, 1], [2, -1]], np.float32))
    >>> axes.mean.tolist(), axes.variances.tolist(), axes.shrinkage
    ([2.0, 0.0], [0.5, 0.5], 0.0)
    """
    n, dim = references.shape
    mean = references.mean(axis=0, dtype=np.float64)
    products, fourth = np.zeros((dim, dim)), 0.0
    for block in row_blocks(n, dim):
        rows = references[block] - mean
        products += rows.T @ rows
        fourth += float((np.einsum("ij,ij->i", rows, rows) ** 2).sum())
    values, vectors = np.linalg.eigh(products / n)
    variances = values[::-1].clip(min=0.0)
    squares = float((variances**2).sum())
    spread = squares / dim - float(variances.mean()) ** 2
    noise = max(0.0, fourth / n - squares) / (n * dim)
    shrinkage = min(1.0, noise / spread) if spread > 0 else 0.0
    return Axes(mean, variances, vectors[:, ::-1], shrinkage)


def int8(queries: FloatArray, references: FloatArray) -> Sides:
    """Return sides whose inner products have the order of those of queries with `int8_references`.

    Stored vectors are not normalised again, and their lengths differ a little. A further column, 0 for queries, makes
    all references equally long without changing an inner product but for a common factor.
    """
    stored = int8_references(references)
    squares = np.einsum("ij,ij->i", stored, stored, dtype=np.float64)
    longest = np.sqrt(squares.max())
    rest = np.sqrt(np.maximum(0.0, 1.0 - squares / longest**2))
    scaled = np.concatenate([stored / np.float32(longest), rest.astype(np.float32)[:, None]], axis=1)
    return np.pad(queries, ((0, 0), (0, 1))), scaled


def int8_references(references: FloatArray) -> FloatArray:
    """Return references [n, d] as an index with 8 bits a dimension stores them, decoded to float32.

    Each dimension has its own range, from its smallest to its largest value, in 256 levels, and a code stands for the
    middle of its level. This is ``QT_8bit`` of faiss, which Milvus calls SQ8. Its queries are not coded.

    >>> int8_references(np.array([[0.0], [1.0]], np.float32)).astype(float).round(4).tolist()
    [[0.002], [1.002]]
    """
    low = references.min(axis=0)
    span = references.max(axis=0) - low
    shares = np.divide(references - low, span, out=np.zeros_like(references), where=span > 0)
    codes = np.floor(shares * np.float32(_LEVELS))
    decoded: FloatArray = low + (codes + np.float32(0.5)) / np.float32(_LEVELS) * span
    return decoded


def signs(rows: FloatArray) -> FloatArray:
    """Return the binary code of each row [n, d]: c where a component is positive, else -c, with d c^2 about 1.

    The inner product of two codes is c^2 (d - 2 h) for Hamming distance h. c has 11 significant bits, so that sums of
    c^2 are exact, and codes of equal distance are ties; its norm is off by at most a part in 2,000.

    >>> signs(np.array([[0.3, -0.1, 0.0, 2.0]], np.float32)).tolist()
    [[0.5, -0.5, -0.5, 0.5]]
    """
    mantissa, exponent = np.frexp(rows.shape[1] ** -0.5)
    size = np.float32(np.ldexp(np.round(mantissa * _STEPS) / _STEPS, exponent))
    codes: FloatArray = np.where(rows > 0, size, -size)
    return codes


def _projected(rows: FloatArray, mean: DoubleArray, matrix: DoubleArray) -> FloatArray:
    """Return ``(rows - mean) @ matrix``, computed in float64."""
    result = np.empty((len(rows), matrix.shape[1]), dtype=np.float32)
    for block in row_blocks(*rows.shape):
        result[block] = (rows[block] - mean) @ matrix
    return result
