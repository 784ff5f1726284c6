"""Approximate indexes of a run's kept embeddings: their acc, speed and size beside those of the exact search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from embedcore.compare.labelled_embeddings import Unavailable, labels_of, rows_of
from embedcore.compare.labelled_retrieval import (
    LOSS,
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
from embedcore.results.leaderboard import boards_of
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.retrieval.indexes import exact_search, found_by, indexes, queries_per_s, recalled, why_not

MOST = 3
"""Models that are indexed unless some are named."""


@dataclass(frozen=True)
class IndexedForm:
    """One index of a model's embeddings."""

    name: str
    """Form and parameter of the search."""
    form: str
    parameters: Mapping[str, int]
    recall1: float
    """Share of the queries whose first neighbour is the exact one, or equally similar."""
    acc: float
    queries_per_s: float
    """On one thread."""
    bytes: int
    build_s: float
    """On one thread."""
    change: ScoreChange | None = None
    """Change of acc against the exact search, None for that one; p is corrected for all forms of all models."""


@dataclass(frozen=True)
class IndexedModel:
    """A model's indexes, the exact search first."""

    result: Result
    forms: tuple[IndexedForm, ...] = ()
    why: str = ""
    """Why there are none."""
    why_not: str = ""
    """Why IVF-PQ is left out."""

    @property
    def fastest(self) -> IndexedForm | None:
        """The fastest index for which a loss of acc above `LOSS` is excluded; None if the exact search is faster."""
        fit = [form for form in self.forms if form.change is None or form.change.low >= -LOSS]
        best = max(fit, key=lambda form: form.queries_per_s, default=None)
        return best if best is not None and best.change is not None else None


@dataclass(frozen=True)
class IndexedRun:
    """The indexed models of a run on one dataset."""

    dataset: Mapping[str, Any]
    models: tuple[IndexedModel, ...]


def index_run(
    run: Run,
    cache: Path,
    patterns: Sequence[str] = (),
    k: int = 5,
    done: Callable[[str], object] = lambda model: None,
) -> list[IndexedRun]:
    """Index the kept embeddings of models of a run on each of its datasets.

    Args:
        run: a run whose session kept its embeddings.
        cache: folder with the embeddings.
        patterns: models, as names or globs; if there are none, the best by acc and those tied with it, at most `MOST`.
        k: number of neighbours of the searches that are timed.
        done: called with the name of each indexed model.

    Raises UsageError if faiss is missing, if a pattern matches no model, and for damaged labels.
    """
    chosen = matching(run, patterns) if patterns else run
    kept = KeptEmbeddings(cache / FOLDER)
    parts = [chosen.on(block) for block, results in chosen.by_dataset() if results]
    return [_indexed(part if patterns else _leaders(part), kept, k, done) for part in parts]


def _leaders(run: Run) -> Run:
    """Return a run on one dataset reduced to the best model by acc and those tied with it, at most `MOST`."""
    (board,) = boards_of(run)
    tied = [row for row in board.by_acc if row.model_rank and row.model_rank.tied_with_leader]
    return replace(run, results=tuple(row.result for row in (tied or board.by_acc[:1])[:MOST]))


def _indexed(run: Run, kept: KeptEmbeddings, k: int, done: Callable[[str], object]) -> IndexedRun:
    models: list[IndexedModel] = []
    tests: dict[tuple[str, str], Tested] = {}
    for result in run.results:
        try:
            retrieval = LabelledRetrieval(labels_of(run))
            rows = rows_of(kept, run, result.embeddings, len(retrieval.images.labels))
            model, found = _forms(rows, result, retrieval, k)
            tests |= {(result.model, name): test for name, test in found.items()}
            models.append(model)
        except Unavailable as reason:
            models.append(IndexedModel(result, why=str(reason)))
        done(result.model)
    changes = dict(zip(tests, corrected([*tests.values()]), strict=True))
    return IndexedRun(run.dataset, tuple(_with_changes(model, changes) for model in models))


def _with_changes(model: IndexedModel, changes: Mapping[tuple[str, str], ScoreChange]) -> IndexedModel:
    forms = (replace(form, change=changes.get((model.result.model, form.name))) for form in model.forms)
    return replace(model, forms=tuple(forms))


def _forms(
    rows: Floats, result: Result, retrieval: LabelledRetrieval, k: int
) -> tuple[IndexedModel, dict[str, Tested]]:
    """Return a model's indexes, and the test of each that is not the exact search.

    Raises Unavailable if the embeddings do not give the saved acc.
    """
    queries, labels, references, reference_labels, itself = retrieval.search(rows)
    exact = exact_search(references)
    best = found_by(exact, queries, itself, k)[:, 0]
    hits = reference_labels[best] == labels
    check_acc(float(hits.mean()), result)
    forms: list[IndexedForm] = []
    tests: dict[str, Tested] = {}
    for index in chain([exact], indexes(references)):
        found = best if index is exact else found_by(index, queries, itself, k)[:, 0]
        right = (reference_labels[found] == labels) & (found >= 0)
        if index is not exact:
            tests[index.name] = tested(hits, right, retrieval.class_of)
        recall1 = float(recalled(queries, references, found, best).mean())
        speed = queries_per_s(index, queries, k if itself is None else k + 1)
        facts = index.name, index.form, index.parameters
        forms.append(IndexedForm(*facts, recall1, float(right.mean()), speed, index.bytes, index.build_s))
    return IndexedModel(result, tuple(forms), why_not=why_not(references)), tests
