"""Multinomial logistic regression on embeddings, fitted by scikit-learn."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.tiles import FloatArray, IntArray

FOLDS = 5
"""Number of folds of a leave-one-out set; each is classified by a fit to the others."""

MOST_IMAGES = 50_000
MOST = 2_500_000
"""Maximum of fits times references times classes."""

STRENGTH = 100.0
"""scikit-learn's C, times the width: the inverse of the L2 penalty for features of unit length on average."""
ITERATIONS = 200
TOLERANCE = 1e-4


def why_not(labels: IntArray, reference_labels: IntArray | None) -> str:
    """Return why logistic regression is left out, such as for lack of scikit-learn; "" if it is not."""
    if find_spec("sklearn") is None:
        return "it needs scikit-learn: pip install 'embedcore[probe]'"
    fitted, fits = (labels, FOLDS) if reference_labels is None else (reference_labels, 1)
    images, classes = len(fitted), len(np.unique(fitted))
    if images > MOST_IMAGES:
        return f"{images:,} references are more than {MOST_IMAGES:,}"
    if fits * images * classes > MOST:
        what = f"{images:,} references x {classes:,} classes"
        return f"{what} x {FOLDS} folds are more than {MOST:,}" if fits > 1 else f"{what} are more than {MOST:,}"
    return ""


def logistic_right(
    queries: FloatArray,
    labels: IntArray,
    references: FloatArray | None = None,
    reference_labels: IntArray | None = None,
    *,
    seed: int = 0,
) -> tuple[npt.NDArray[np.bool_], int]:
    """Return for each query [n] whether logistic regression on the references predicts its class.

    Features are standardised by the references. The fit minimises the sum of the cross entropies plus
    ``|W|^2 d / (2 * STRENGTH)``, d the width; the bias is not penalised. Without references, `folds` takes the place of
    leave-one-out. Also returns the number of fits that ended after `ITERATIONS` without reaching the tolerance.
    """
    if references is not None and reference_labels is not None:
        guess, stopped = _classified(queries, references, reference_labels)
        return guess == labels, int(stopped)
    right, unfinished = np.zeros(len(labels), dtype=np.bool_), 0
    fold = folds(labels, seed)
    for number in np.unique(fold):
        held = fold == number
        if held.all():
            continue
        guess, stopped = _classified(queries[held], queries[~held], labels[~held])
        right[held] = guess == labels[held]
        unfinished += stopped
    return right, unfinished


def folds(labels: IntArray, seed: int = 0) -> IntArray:
    """Return the fold of each image, 0 to 4: stratified by class, in random order within a class.

    Folds differ by at most one image, and so do the parts of a class.

    >>> np.bincount(folds(np.repeat([4, 7], [6, 5]))).tolist()
    [3, 2, 2, 2, 2]
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % FOLDS
    return fold


def _classified(queries: FloatArray, references: FloatArray, labels: IntArray) -> tuple[IntArray, bool]:
    """Return the predicted class of each query, and whether the fit ended before it converged."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels)) == 1:
        return np.full(len(queries), labels[0]), False
    fit = LogisticRegression(C=STRENGTH / references.shape[1], tol=TOLERANCE, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of fits that end early, and of many classes
        model = make_pipeline(StandardScaler(), fit).fit(references.astype(np.float64), labels)
    guess: IntArray = model.predict(queries.astype(np.float64))
    return guess, bool(np.max(fit.n_iter_) >= ITERATIONS)
