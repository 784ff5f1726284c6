"""Ridge regression on one-hot targets, in closed form, with exact leave-one-out errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.tiles import DoubleArray, FloatArray, IntArray, row_blocks

GRID: DoubleArray = np.logspace(-4, 2, 7)
"""Penalties, in units of the mean eigenvalue of X'X."""

_LEAST = 1e-12  # of 1 - leverage, which is 0 for a single reference
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Ridge:
    """A ridge regression fitted to n references of C classes, width d.

    classes: [C], ascending · weights: [d, C] and bias: [C], so that predictions are ``rows @ weights + bias`` ·
    penalty: the chosen one of penalties [p] · errors: [p], the mean squared error, summed over classes, of predicting
    each reference from all others · leverage: [n], the weight of a reference's target in its own prediction.
    """

    classes: IntArray
    weights: DoubleArray
    bias: DoubleArray
    penalty: float
    penalties: DoubleArray
    errors: DoubleArray
    leverage: DoubleArray

    def predictions(self, rows: FloatArray) -> DoubleArray:
        """Return the predicted targets [m, C] of rows [m, d]."""
        return np.asarray(rows.astype(np.float64) @ self.weights + self.bias)

    def left_out(self, rows: FloatArray, codes: IntArray, leverage: DoubleArray) -> DoubleArray:
        """Return the targets [m, C] of some of the references, each predicted by a fit to all other references.

        rows: [m, d] · codes: [m], places of their classes in `classes` · leverage: [m], their part of `leverage`.
        """
        values = self.predictions(rows)
        values[np.arange(len(values)), codes] -= leverage
        values /= np.maximum(1 - leverage, _LEAST)[:, None]
        return values


def fit_ridge(references: FloatArray, labels: IntArray) -> Ridge:
    """Fit a ridge regression of one-hot targets on embeddings; choose the penalty by leave-one-out errors.

    With centred features X [n, d] and targets Y [n, C] (1 in the column of a reference's class, else 0) the weights are
    (X'X + penalty I)^-1 X'Y; the bias is not penalised. With eigenvectors V and eigenvalues s of X'X and Z = XV the
    leverage of reference i is h_i = 1/n + sum_k z_ik^2 / (s_k + penalty). Its target y_i, predicted as f_i by the fit
    to all references, is predicted as y_i - (y_i - f_i) / (1 - h_i) by a fit to all others (Allen's PRESS,
    Technometrics 16, 1974). No fit is repeated. X'X or XX' is decomposed, whichever is smaller; references are
    processed in blocks, so that no [n, n] and no [n, C] is in memory.

    Args:
        references: float32 [n, d].
        labels: class numbers [n].

    >>> rows = np.array([[1, 0], [0.96, 0.28], [0, 1], [0.28, 0.96]], np.float32)
    >>> model = fit_ridge(rows, np.array([3, 3, 8, 8]))
    >>> model.classes[model.predictions(rows).argmax(axis=1)].tolist()
    [3, 3, 8, 8]
    """
    classes, codes = np.unique(labels, return_inverse=True)
    mean = references.mean(axis=0, dtype=np.float64)
    shares = np.bincount(codes) / len(references)
    axes, spread = _principal_axes(references, mean)
    products = axes.T @ _class_sums(references, codes, mean).T
    penalties = GRID * (spread.mean() if len(spread) else 1.0)
    errors, leverage = _leave_one_out(references, codes, mean, axes, spread, products, shares, penalties)
    best = int(np.argmin(errors))
    weights = axes @ (products / (spread + penalties[best])[:, None])
    bias = shares - mean @ weights
    return Ridge(classes, weights, bias, float(penalties[best]), penalties, errors, leverage[:, best])


def ridge_right(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray | None = None,
    reference_labels: IntArray | None = None,
) -> npt.NDArray[np.bool_]:
    """Return for each query [n] whether ridge regression on the references predicts its class; ties: the smaller class.

    Without references it is leave-one-out: each query is predicted by a fit to all others, with one penalty for all.
    """
    codes: IntArray | None = None
    if references is None or reference_labels is None:
        model = fit_ridge(queries, labels)
        codes = np.searchsorted(model.classes, labels)
    else:
        model = fit_ridge(references, reference_labels)
    right = np.empty(len(queries), dtype=np.bool_)
    for part in row_blocks(len(queries), max(model.weights.shape)):
        if codes is None:
            values = model.predictions(queries[part])
        else:
            values = model.left_out(queries[part], codes[part], model.leverage[part])
        right[part] = model.classes[values.argmax(axis=1)] == labels[part]
    return right


def _principal_axes(rows: FloatArray, mean: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Return the eigenvectors [d, r] and eigenvalues [r] of the centred rows' X'X, without those that are 0."""
    n, dim = rows.shape
    if n > dim:
        gram = np.zeros((dim, dim))
        for part in row_blocks(n, dim):
            centred = rows[part] - mean
            gram += centred.T @ centred
        spread, vectors = np.linalg.eigh(gram)
    else:
        centred = rows - mean
        spread, vectors = np.linalg.eigh(centred @ centred.T)
    # Rounding of unit rows alone gives eigenvalues of about n eps^2.
    kept = spread > _EPS * max(n, dim) * max(float(spread[-1]), _EPS * n)
    spread, vectors = spread[kept], vectors[:, kept]
    return (vectors if n > dim else centred.T @ (vectors / np.sqrt(spread))), spread


def _class_sums(rows: FloatArray, codes: IntArray, mean: DoubleArray) -> DoubleArray:
    """Return the sum of the centred rows of each class, [C, d]."""
    ends = np.cumsum(np.bincount(codes))
    members = np.split(np.argsort(codes, kind="stable"), ends[:-1])
    return np.stack([rows[some].sum(axis=0, dtype=np.float64) - len(some) * mean for some in members])


def _leave_one_out(
    rows: FloatArray,
    codes: IntArray,
    mean: DoubleArray,
    axes: DoubleArray,
    spread: DoubleArray,
    products: DoubleArray,
    shares: DoubleArray,
    penalties: DoubleArray,
) -> tuple[DoubleArray, DoubleArray]:
    """Return the mean squared leave-one-out error of each penalty [p], and the leverages [n, p].

    With centred targets y and predictions f of a row, |y - f|^2 = |y|^2 - 2 y'f + |f|^2. The last term is costly: it is
    computed for each row if there are few classes, else summed over rows by ``products @ products.T`` [r, r].
    products: [r, C], Z'Y · shares: [C], the mean of the targets.
    """
    n, rank, classes = len(rows), len(spread), len(shares)
    shrink = 1 / (spread[:, None] + penalties)
    for_own = products - (products @ shares)[:, None]
    lengths = 1 - 2 * shares[codes] + shares @ shares
    few = 2 * classes < rank
    factor = products if few else products @ products.T
    errors, leverage = np.zeros(len(penalties)), np.empty((n, len(penalties)))
    for part in row_blocks(n, max(1, rank)):
        z = (rows[part] - mean) @ axes
        leverage[part] = 1 / n + np.square(z) @ shrink
        weight = np.maximum(1 - leverage[part], _LEAST) ** -2
        own = (z * for_own[:, codes[part]].T) @ shrink
        errors += ((lengths[part, None] - 2 * own) * weight).sum(axis=0)
        for place in range(len(penalties)):
            shrunk = z * shrink[:, place]
            if few:
                predicted = shrunk @ factor
                errors[place] += np.einsum("ij,ij,i->", predicted, predicted, weight[:, place])
            else:
                shrunk *= np.sqrt(weight[:, place])[:, None]
                errors[place] += np.vdot(shrunk.T @ shrunk, factor)
    return errors / n, leverage
