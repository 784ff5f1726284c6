"""The tables of ``embedcore index``, and its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tabulate import tabulate

from embedcore.compare.indexed import IndexedForm, IndexedModel, IndexedRun
from embedcore.compare.labelled_retrieval import LOSS
from embedcore.plain import bytes_text, json_safe, one_line, wrapped
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.columns import figure, random_notice
from embedcore.report.change_text import change_cells, change_values
from embedcore.results.leaderboard import Row

SCHEMA = 1

_MEANINGS = (
    "form: HNSW with its efSearch, IVF-PQ with its nprobe. recall: share of queries with the exact nearest neighbour. "
    "change: of acc against the exact search, in points; 95 %: its interval, paired by query and clustered by class; "
    "p: sign flips of classes, corrected for all forms of all models. q/s: queries per second with {} neighbours "
    "each, in one batch on one thread, among these references; the more there are, the more an index gains. size: of "
    "the serialised index. build: seconds on one thread."
)


def as_text(parts: Sequence[IndexedRun], k: int, width: int) -> str:
    """Return the tables of all models, in lines of `width`; `k`: neighbours of the timed searches."""
    blocks = [block for part in parts for block in _blocks(part, width)]
    return "\n\n".join([*blocks, wrapped(_MEANINGS.format(k), width)])


def _blocks(part: IndexedRun, width: int) -> Iterator[str]:
    counts = [f"{part.dataset[key]:,} {key}" for key in ("classes", "queries", "references") if key in part.dataset]
    yield wrapped(f"{dataset_name(part.dataset)}: {', '.join(counts)}", width)
    notice = random_notice([Row(1, model.result) for model in part.models if model.forms])
    if notice:
        yield notice
    for model in part.models:
        if model.why:
            yield wrapped(one_line(f"{model.result.model}: {model.why}"), width)
        else:
            yield "\n".join([one_line(model.result.model), _table(model.forms), *_below(model, width)])


def _table(forms: Sequence[IndexedForm]) -> str:
    # Headings are passed as a row: tabulate makes columns with headers two blanks too wide.
    headings = ("form", "recall", "acc", "change", "95 %", "p", "q/s", "size", "build")
    rows = [headings, *map(_cells, forms)]
    return tabulate(rows, tablefmt="plain", colalign=["left", *["right"] * 8], disable_numparse=True)


def _cells(form: IndexedForm) -> Sequence[str]:
    costs = figure(form.queries_per_s), bytes_text(form.bytes), figure(form.build_s)
    return form.name, f"{form.recall1:.3f}", f"{form.acc:.3f}", *change_cells(form.change), *costs


def _below(model: IndexedModel, width: int) -> Iterator[str]:
    if model.why_not:
        yield wrapped(f"IVF-PQ is left out: {model.why_not}.", width)
    best, most = model.fastest, f"{100 * LOSS:g} point of acc"
    if best is None:
        line = f"No index that is shown to lose at most {most} is faster than the exact search."
    else:
        times = figure(best.queries_per_s / model.forms[0].queries_per_s)
        line = f"The fastest index that loses at most {most}, by its interval: {best.name}, {times} times as fast."
    yield wrapped(line, width)


def as_json(parts: Sequence[IndexedRun], k: int) -> dict[str, Any]:
    """Return all numbers, as JSON values."""
    datasets = [_part(part) for part in parts]
    found: dict[str, Any] = json_safe({"schema": SCHEMA, "k": k, "threads": 1, "datasets": datasets})
    return found


def _part(part: IndexedRun) -> dict[str, Any]:
    indexes = [
        {
            "model": model.result.model,
            "form": form.form,
            "parameters": form.parameters,
            "recall1": form.recall1,
            "acc": form.acc,
            "change": None,
            **change_values(form.change),
            "queries_per_s": form.queries_per_s,
            "bytes": form.bytes,
            "build_s": form.build_s,
        }
        for model in part.models
        for form in model.forms
    ]
    left_out = [{"model": model.result.model, "form": None, "why": model.why} for model in part.models if model.why]
    left_out += [
        {"model": model.result.model, "form": "IVF-PQ", "why": model.why_not} for model in part.models if model.why_not
    ]
    return {
        "name": dataset_name(part.dataset),
        "fingerprint": part.dataset.get("fingerprint"),
        "indexes": indexes,
        "left_out": left_out,
    }
