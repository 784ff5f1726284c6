"""The tables of ``embedcore squeeze``, and its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from embedcore.compare.labelled_retrieval import LOSS, METRICS
from embedcore.compare.squeezed import Ensemble, SqueezedForm, SqueezedModel, SqueezedRun
from embedcore.plain import counted, json_safe, one_line, wrapped
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.columns import figure, random_notice
from embedcore.report.board.marks import doubts
from embedcore.report.change_text import change_cells, change_values
from embedcore.report.gate.model_table import TableRow, model_table
from embedcore.results.leaderboard import Row
from embedcore.results.result import Result

SCHEMA = 1

_MOST_DETAILS = 20  # models in the terminal
_MEANINGS = (
    "bytes: of a stored image. change: of acc against float32, in points. 95 %: its interval, paired by query and "
    "clustered by class. p: sign flips of classes, corrected for all forms of all models. Means, axes and ranges are "
    "fitted on the references."
)


def as_text(parts: Sequence[SqueezedRun], width: int) -> str:
    """Return the tables of all models, the best first, and of the ensembles, in lines of `width`."""
    return "\n\n".join(block for part in parts for block in _blocks(part, width))


def _blocks(part: SqueezedRun, width: int) -> Iterator[str]:
    known = [model for model in part.models if model.forms]
    known.sort(key=lambda model: -model.result.scores["acc"])
    counts = [f"{part.dataset[key]:,} {key}" for key in ("classes", "queries", "references") if key in part.dataset]
    yield wrapped(f"{dataset_name(part.dataset)}: {', '.join(counts)}", width)
    notice = random_notice([Row(1, model.result) for model in known])
    if notice:
        yield notice
    for model in known[:_MOST_DETAILS]:
        yield "\n".join([one_line(model.result.model), _table(model.forms), *_below(model, width)])
    if len(known) > _MOST_DETAILS:
        yield f"… {len(known) - _MOST_DETAILS} more; --format json has all"
    if known:
        yield wrapped(_MEANINGS, width)
    if part.ensembles:
        yield _ensembles(part, width)
    lost = [f"{model.result.model}: {model.why}" for model in part.models if model.why]
    if lost:
        yield "\n".join(wrapped(one_line(line), width) for line in lost)


def _table(forms: Sequence[SqueezedForm]) -> str:
    # Headings are passed as a row: tabulate makes columns with headers two blanks too wide.
    headings = ("form", "bytes", "acc", "change", "95 %", "p", "acc5", "map@R")
    rows = [headings, *(_cells(form) for form in forms if form.scores)]
    return tabulate(rows, tablefmt="plain", colalign=["left", *["right"] * 7], disable_numparse=True)


def _cells(form: SqueezedForm) -> Sequence[str]:
    acc, acc5, map_at_r = (f"{form.scores[metric]:.3f}" for metric in METRICS)
    return form.name, str(form.bytes), acc, *change_cells(form.change), acc5, map_at_r


def _below(model: SqueezedModel, width: int) -> Iterator[str]:
    for form in model.forms:
        if form.why:
            yield wrapped(f"{form.name}: {form.why}", width)
    best, most = model.smallest, f"{100 * LOSS:g} point of acc"
    if best is None:
        line = f"No smaller form is shown to lose at most {most}; more classes narrow the intervals."
    else:
        sizes = f"{best.bytes:,} bytes instead of {model.forms[0].bytes:,}"
        line = f"The smallest form that loses at most {most}, by its interval: {best.name}, {sizes}."
    yield wrapped(line, width)


def _ensembles(part: SqueezedRun, width: int) -> str:
    results = {model.result.model: model.result for model in part.models}
    first, second = part.classes
    title = (
        f"Ensembles of concatenated embeddings, chosen by the queries of {counted(first, 'class', 'classes')} and "
        f"judged by those of {second} others, against the best single model:"
    )
    rows = [
        TableRow(
            f"{'+ ' * (len(ensemble.models) > 1)}{one_line(ensemble.models[-1])}",
            (
                str(ensemble.bytes),
                _milliseconds(ensemble, results),
                f"{ensemble.acc:.3f}",
                *change_cells(ensemble.change),
            ),
        )
        for ensemble in part.ensembles
    ]
    table = model_table(("bytes", "ms", "acc", "change", "95 %", "p"), rows, width)
    meaning = "ms: forward pass of an image in all models, ! if a speed is doubtful; p: corrected for both sizes."
    return f"{wrapped(title, width)}\n{table}\n{wrapped(meaning, width)}"


def _milliseconds(ensemble: Ensemble, results: Mapping[str, Result]) -> str:
    doubtful = any(doubts(results[model]) for model in ensemble.models)
    return figure(None if ensemble.seconds is None else 1000 * ensemble.seconds) + "!" * doubtful


def as_json(parts: Sequence[SqueezedRun]) -> dict[str, Any]:
    """Return all numbers, as JSON values."""
    found: dict[str, Any] = json_safe({"schema": SCHEMA, "datasets": [_part(part) for part in parts]})
    return found


def _part(part: SqueezedRun) -> dict[str, Any]:
    chosen_on, judged_on = part.classes
    ensembles = [
        {
            "models": each.models,
            "acc": each.acc,
            "acc_where_chosen": each.chosen_acc,
            "bytes": each.bytes,
            "seconds": each.seconds,
            **change_values(each.change),
        }
        for each in part.ensembles
    ]
    return {
        "name": dataset_name(part.dataset),
        "fingerprint": part.dataset.get("fingerprint"),
        "models": [
            {
                "model": model.result.model,
                "why": model.why,
                "smallest": None if model.smallest is None else model.smallest.name,
                "forms": [
                    {
                        "form": form.name,
                        "bytes": form.bytes,
                        **form.scores,
                        **change_values(form.change),
                        "why": form.why,
                    }
                    for form in model.forms
                ],
            }
            for model in part.models
        ],
        "ensembles": {"classes_chosen": chosen_on, "classes_judged": judged_on, "found": ensembles},
    }
