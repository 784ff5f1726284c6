"""Two runs, two models of a run, or two embeddings of the same images, compared as a DataFrame."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embedcore.compare import comparison, statistics
from embedcore.compare.pairs import Pair
from embedcore.compare.scores import score_changes, step_intervals, step_test
from embedcore.errors import UsageError
from embedcore.frames import import_pandas
from embedcore.images.dataset import Dataset
from embedcore.notebook.shown_run import as_run
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import NEAREST
from embedcore.retrieval.metrics import Scores, score

_UNITS = {"acc": 1, "acc5": NEAREST, "hit5": 1, "knn20": 1, "centroid": 1}
"""Scores of a query that are whole numbers of these parts, so that an exact test exists."""
_Row = Mapping[str, Any]


def compare(a: Any, b: Any, *, on: Any = None, normalize: bool = False) -> Any:
    """Compare two models or runs that were measured on the same images, as a DataFrame.

    A row is one quantity, ``what``: its values ``a`` and ``b``; ``change``, which is b - a of a score, b / a - 1 of
    ``images_per_s`` and ``memory``, and the drift of embeddings; the 95 % interval of the change from ``low`` to
    ``high``, resampled by class; ``p``, corrected for the number of tests; and whether the change is ``significant``.

    - ``compare(run_a, run_b)``: all models of two runs (or their paths), as ``embedcore compare`` does: model by model,
      with a column ``model``, and ``note`` for what could not be compared.
    - ``compare("resnet18.a1_in1k", "vit_tiny_patch16_224.augreg_in21k", on=run)``: two models of one run.
    - ``compare(embeddings_a, embeddings_b, on=dataset)``: two embeddings of all images of a dataset, in its order; or
      ``on=labels`` for leave-one-out. ``normalize=True`` divides each row by its norm, as in :func:`score`.
    - ``compare(scores_a, scores_b)``: two results of :func:`score` on the same images.

    Raises UsageError for anything else, and for sides that are not of the same images.
    """
    if isinstance(on, Run):
        return _frame(_models(_result(on, a), _result(on, b), on))
    if isinstance(a, Run | str | os.PathLike) and isinstance(b, Run | str | os.PathLike) and on is None:
        return _frame(_runs(as_run(a), as_run(b)))
    if isinstance(a, Scores) and isinstance(b, Scores) and on is None:
        return _frame(_scores(a, b))
    if on is not None and not isinstance(a, str) and not isinstance(b, str):
        return _frame(_scores(_scored(a, "a", on, normalize), _scored(b, "b", on, normalize)))
    raise UsageError(
        f"a {type(a).__name__} and a {type(b).__name__} cannot be compared{'' if on is None else ' on this'}: "
        "compare two runs, two scores, two models on=run, or two embeddings on=dataset"
    )


def _frame(rows: Iterator[_Row]) -> Any:
    return import_pandas().DataFrame([*rows])


def _row(what: str, a: Any, b: Any, change: float | None, interval: Any = None, p: float | None = None) -> _Row:
    low, high = interval or (None, None)
    values = {"change": change, "low": low, "high": high, "p": p}
    numbers = {name: math.nan if value is None else float(value) for name, value in values.items()}
    return {"what": what, "a": a, "b": b, **numbers, "significant": p is not None and p <= statistics.SIGNIFICANT}


def _runs(a: Run, b: Run) -> Iterator[_Row]:
    found = comparison.compare(a, b)
    for model in found.models:
        for change in model.changes:
            value, low, high = change.change, change.low, change.high
            if change.what in ("status", "degraded"):
                row = _row(change.what, change.base, change.new, None)
            else:
                interval = None if low is None or high is None else (low, high)
                if change.what not in ("memory", "drift"):  # of which more is worse
                    value, interval = -value, interval and (-interval[1], -interval[0])
                row = _row(change.what, change.base, change.new, value, interval, change.p)
            yield {"model": model.model, **row, "significant": change.real, "note": "; ".join(model.causes)}
        for what, why in {**found.barriers, **model.barriers}.items():
            yield {"model": model.model, **_row(what, None, None, None), "note": f"not compared: {why}"}
    pairing = found.pairing
    for result in (*pairing.missing, *pairing.unreached, *pairing.deselected):
        yield {"model": result.model, **_row("status", result.status, None, None), "note": "only in a"}
    for result in pairing.added:
        yield {"model": result.model, **_row("status", None, result.status, None), "note": "only in b"}


def _result(run: Run, model: Any) -> Result:
    """Return the result of a model in a run. Raises UsageError."""
    if len(run.datasets) > 1:
        raise UsageError(f"run {run.name!r} has several datasets: choose one, such as on=run.on(run.datasets[0])")
    found = {result.model: result for result in run.results}
    if isinstance(model, str) and model in found:
        return found[model]
    failed = next((result for result in run.excluded if result.model == model), None)
    why = f"{failed.status}: {failed.reason}" if failed else f"its models are {', '.join([*found][:20]) or 'none'}"
    raise UsageError(f"{model!r} was not measured in run {run.name!r}: {why}")


def _models(a: Result, b: Result, run: Run) -> Iterator[_Row]:
    for _, change in score_changes([Pair(a, b)], run, run):
        interval = None if change.low is None or change.high is None else (-change.high, -change.low)
        yield _row(change.what, change.base, change.new, -change.change, interval, change.p)
    old, new = (result.images_per_s.get("forward") for result in (a, b))
    if old and new:
        yield _row("images_per_s", old, new, new / old - 1)


def _scored(embeddings: Any, side: str, on: Any, normalize: bool) -> Scores:
    """Return the scores of embeddings of all images of a dataset, or of labelled ones. Raises UsageError."""
    if not isinstance(on, Dataset):
        return score(embeddings, on, normalize=normalize)
    on.expect_classes()
    if len(embeddings) != len(on):
        raise UsageError(f"{side} has {len(embeddings)} embeddings, and {on!r} has {len(on)} images: one for each")
    if on.leave_one_out:
        return score(embeddings, on.labels, normalize=normalize)
    queries, references = embeddings[on.is_query], embeddings[on.is_reference]
    return score(queries, on.query_labels, references, on.reference_labels, normalize=normalize)


def _scores(a: Scores, b: Scores) -> Iterator[_Row]:
    if not (np.array_equal(a.scored, b.scored) and np.array_equal(a.classes, b.classes)):
        raise UsageError("the two scores are not of the same queries: their labels differ")
    names, which = np.unique(a.classes, return_inverse=True)
    which, classes = which.reshape(-1), len(names)
    metrics = [*a.per_query]
    steps = np.stack([b.per_query[metric] - a.per_query[metric] for metric in metrics])
    counted = {
        metric: np.rint(steps[metrics.index(metric)] * units).astype(np.int64) for metric, units in _UNITS.items()
    }
    tests = [step_test(step, which, classes) for step in counted.values()]
    adjusted = statistics.false_discovery([test.p for test in tests], [test.least for test in tests]).tolist()
    p_of = dict(zip(counted, adjusted, strict=True))
    paired = step_intervals(steps, which, classes)
    for metric, change, low, high in zip(metrics, *(side.tolist() for side in paired), strict=True):
        yield _row(metric, a.values[metric], b.values[metric], change, (low, high), p_of.get(metric))
