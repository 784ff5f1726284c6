"""Scores of a run's models after their embeddings are squeezed, and of ensembles of models, from kept embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.compare.compatibility import halves
from embedcore.compare.labelled_embeddings import Unavailable, labels_of, rows_of
from embedcore.compare.labelled_retrieval import (
    LOSS,
    METRICS,
    Floats,
    LabelledRetrieval,
    ScoreChange,
    Tested,
    check_acc,
    corrected,
    matching,
    tested,
)
from embedcore.embed.kept import FOLDER, KeptEmbeddings
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.retrieval.ensembles import MOST, concatenated, greedy, nearest_hits
from embedcore.retrieval.squeeze import FULL, variants


@dataclass(frozen=True)
class SqueezedForm:
    """The scores of one form of a model's embeddings."""

    name: str
    bytes: int
    """Bytes of a stored image."""
    scores: Mapping[str, float]
    """`METRICS`; empty if it could not be scored."""
    change: ScoreChange | None = None
    """Change of acc against the full embeddings, None for these; p is corrected for all forms of all models."""
    why: str = ""
    """Why it could not be scored."""


@dataclass(frozen=True)
class SqueezedModel:
    """A model's forms, the full embeddings first."""

    result: Result
    forms: tuple[SqueezedForm, ...] = ()
    why: str = ""
    """Why there are none."""

    @property
    def smallest(self) -> SqueezedForm | None:
        """The smallest form for which a loss of acc above `LOSS` is excluded; None if only the full one is left."""
        fit = [form for form in self.forms if form.change is not None and form.change.low >= -LOSS]
        best = min(fit, key=lambda form: (form.bytes, -form.scores["acc"]), default=None)
        return best if best is not None and best.bytes < self.forms[0].bytes else None


@dataclass(frozen=True)
class Ensemble:
    """A concatenation of models, or the single best one."""

    models: tuple[str, ...]
    chosen_acc: float
    """acc on the classes by which it was chosen."""
    acc: float
    """acc on the other classes."""
    bytes: int
    """Bytes of a stored image, as float32."""
    seconds: float | None
    """Seconds an image takes in all models, by their `images_per_s.forward`; None if one was not timed."""
    change: ScoreChange | None = None
    """Change of `acc` against the single model, None for that one; p is corrected for all sizes."""


@dataclass(frozen=True)
class SqueezedRun:
    """All models of a run on one dataset."""

    dataset: Mapping[str, Any]
    models: tuple[SqueezedModel, ...]
    ensembles: tuple[Ensemble, ...] = ()
    """The best single model, and the best ensembles that contain it, by size."""
    classes: tuple[int, int] = (0, 0)
    """Number of classes on which the ensembles were chosen and judged."""


def squeeze_run(
    run: Run, cache: Path, patterns: Sequence[str] = (), done: Callable[[str], object] = lambda model: None
) -> list[SqueezedRun]:
    """Squeeze the kept embeddings of a run's models, and search for ensembles of them, on each of its datasets.

    Args:
        run: a run whose session kept its embeddings.
        cache: folder with the embeddings.
        patterns: models, as names or globs; all if there are none.
        done: called with the name of each model whose embeddings were squeezed.

    Raises UsageError if a pattern matches no model, and for damaged labels.
    """
    run = matching(run, patterns)
    kept = KeptEmbeddings(cache / FOLDER)
    return [_squeezed(run.on(block), kept, done) for block, results in run.by_dataset() if results]


def _squeezed(run: Run, kept: KeptEmbeddings, done: Callable[[str], object]) -> SqueezedRun:
    try:
        retrieval = LabelledRetrieval(labels_of(run))
    except Unavailable as reason:
        return SqueezedRun(run.dataset, tuple(SqueezedModel(result, why=str(reason)) for result in run.results))
    keys = {result.model: result.embeddings for result in run.results}

    @lru_cache(maxsize=MOST)
    def rows(model: str) -> Floats:
        return rows_of(kept, run, keys[model], len(retrieval.images.labels))

    models: list[SqueezedModel] = []
    tests: dict[tuple[str, str], Tested] = {}
    for result in run.results:
        try:
            forms, found = _forms(rows(result.model), result, retrieval)
            tests |= {(result.model, form): test for form, test in found.items()}
            models.append(SqueezedModel(result, tuple(forms)))
        except Unavailable as reason:
            models.append(SqueezedModel(result, why=str(reason)))
        done(result.model)
    changes = dict(zip(tests, corrected([*tests.values()]), strict=True))
    models = [_with_changes(model, changes) for model in models]
    members = {model.result.model: model.result for model in models if model.forms}
    second = halves(retrieval.class_of)
    if len(members) < 2 or not second.any():
        return SqueezedRun(run.dataset, tuple(models))
    first_classes, second_classes = (len(np.unique(retrieval.class_of[half])) for half in (~second, second))
    found_ensembles = _ensembles(members, rows, retrieval, second)
    return SqueezedRun(run.dataset, tuple(models), found_ensembles, (first_classes, second_classes))


def _with_changes(model: SqueezedModel, changes: Mapping[tuple[str, str], ScoreChange]) -> SqueezedModel:
    forms = (replace(form, change=changes.get((model.result.model, form.name))) for form in model.forms)
    return replace(model, forms=tuple(forms))


def _forms(rows: Floats, result: Result, retrieval: LabelledRetrieval) -> tuple[list[SqueezedForm], dict[str, Tested]]:
    """Return the forms of a model's embeddings, and the test of each that is not the full one.

    Raises Unavailable if the embeddings do not give the saved acc.
    """
    forms: list[SqueezedForm] = []
    tests: dict[str, Tested] = {}
    full: NDArray[np.float64] | None = None
    for variant in variants(*retrieval.sides(rows)):
        try:
            values = retrieval.scores(variant.make())
        except UsageError as error:  # an embedding of which nothing is left
            forms.append(SqueezedForm(variant.name, variant.bytes, {}, why=str(error)))
            continue
        scores = dict(zip(METRICS, values.mean(axis=1).tolist(), strict=True))
        forms.append(SqueezedForm(variant.name, variant.bytes, scores))
        if variant.name == FULL:
            check_acc(scores["acc"], result)
            full = values
        elif full is not None:
            tests[variant.name] = tested(full[0], values[0], retrieval.class_of)
    return forms, tests


def _ensembles(
    members: Mapping[str, Result],
    rows: Callable[[str], Floats],
    retrieval: LabelledRetrieval,
    second: NDArray[np.bool_],
) -> tuple[Ensemble, ...]:
    """Return the best single model and the best ensembles by greedy search.

    They are chosen by the queries of the first half of the classes, and judged by those of the `second` [n_scored]. The
    references are all those of the run for both: equal galleries make the scores of both halves as hard as the run's
    own, and a class whose queries are judged later is no more than a distractor while the ensemble is chosen.
    """

    def hits(models: tuple[str, ...], half: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return nearest_hits(*retrieval.search(concatenated([rows(model) for model in models]), half))

    values: dict[tuple[str, ...], float] = {}

    def value(models: tuple[str, ...]) -> float:
        values[models] = float(hits(models, ~second).mean())
        return values[models]

    chosen = greedy([*members], value)
    judged = [hits(models, second) for models in chosen]
    tests = [tested(judged[0], after, retrieval.class_of[second]) for after in judged[1:]]
    return tuple(
        Ensemble(
            models,
            chosen_acc=values[models],
            acc=float(after.mean()),
            bytes=sum(4 * rows(model).shape[1] for model in models),
            seconds=_seconds([members[model] for model in models]),
            change=change,
        )
        for models, after, change in zip(chosen, judged, [None, *corrected(tests)], strict=True)
    )


def _seconds(results: Sequence[Result]) -> float | None:
    speeds = [result.images_per_s.get("forward") for result in results]
    return sum(1 / speed for speed in speeds if speed) if all(speeds) else None
