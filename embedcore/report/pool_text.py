"""The table of ``embedcore pool``, and its JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embedcore.compare.pool import FEWEST_FOR_NEW, Pool, PooledModel
from embedcore.compare.statistics import SIGNIFICANT
from embedcore.plain import counted, json_safe, one_line, wrapped
from embedcore.report.board.captions import dataset_name
from embedcore.report.board.columns import NOTHING
from embedcore.report.change_text import interval, points
from embedcore.report.gate.model_table import TableRow, model_table

SCHEMA = 1

_MOST_ROWS = 40  # in the terminal
_MEANINGS = (
    "mean: of the differences of acc to the reference, in points, over image sets like these, * if significant "
    "(corrected for all models), with its 95 % interval; spread: standard deviation of the true differences between "
    "sets; new set: 95 % prediction interval of the true difference on another set; better: chance that it is above 0."
)


def as_text(found: Pool, width: int) -> str:
    """Return the image sets, a table of all models, the largest mean first, and what it means for a new set."""
    rows = [_row(model, found) for model in found.models[:_MOST_ROWS]]
    table = model_table(("mean", "95 %", "spread", "new set", "better"), rows, width)
    rest = len(found.models) - _MOST_ROWS
    more = [f"… {rest} more; --format json has all"] if rest > 0 else []
    blocks = [
        "\n".join(wrapped(line, width) for line in _above(found)),
        "\n".join([table, *more]),
        "\n".join(wrapped(line, width) for line in (*_answer(found), _MEANINGS)),
    ]
    return "\n\n".join(blocks)


def _above(found: Pool) -> Iterator[str]:
    for block, acc in zip(found.sets, found.accs, strict=True):
        counts = [f"{block[key]:,} {key}" for key in ("classes", "queries") if key in block]
        level = "not measured" if acc is None else f"{acc:.3f}"
        yield f"{dataset_name(block)}: {', '.join(counts)}; acc of the reference {level}"
    yield f"Reference: {one_line(found.reference)}."


def _row(model: PooledModel, found: Pool) -> TableRow:
    estimate, sets = model.pooled, len(model.differences)
    notes = [f"on {sets} of {len(found.sets)} sets"] if sets < len(found.sets) else []
    cells = (
        f"{points(estimate.mean)}{'*' if estimate.p <= SIGNIFICANT else ' '}",
        interval(estimate.low, estimate.high),
        f"{100 * estimate.tau:.1f}",
        NOTHING if estimate.new is None else interval(*estimate.new),
        NOTHING if estimate.better is None else f"{100 * estimate.better:.0f} %",
    )
    return TableRow(one_line(model.model), cells, notes)


def _answer(found: Pool) -> Iterator[str]:
    known = [(model.model, model.pooled.new[1], model.pooled.better) for model in found.models if model.pooled.new]
    if not known:
        yield f"Intervals for a new set need at least {FEWEST_FOR_NEW} sets."
    else:
        worse = sum(high < 0 for _, high, _ in known)
        yield (
            f"On a new set like these, {worse} of {counted(len(known), 'model')} would be worse than the reference, "
            "by their intervals."
        )
        model, _, better = max(known, key=lambda row: row[2] or 0.0)
        yield f"The most likely to be better there is {one_line(model)}: {100 * (better or 0.0):.0f} %."
    if found.left_out:
        yield f"On fewer than two of these sets, and left out: {', '.join(map(one_line, found.left_out))}."


def as_json(found: Pool) -> dict[str, Any]:
    """Return all numbers, as JSON values; differences are fractions."""
    models = [
        {
            "model": model.model,
            "mean": model.pooled.mean,
            "ci95": (model.pooled.low, model.pooled.high),
            "p": model.pooled.p,
            "tau": model.pooled.tau,
            "new_set95": model.pooled.new,
            "better": model.pooled.better,
            "sets": [
                {"set": dataset_name(found.sets[number]), "difference": difference, "standard_error": error}
                for number, (difference, error) in model.differences.items()
            ],
        }
        for model in found.models
    ]
    safe: dict[str, Any] = json_safe(
        {
            "schema": SCHEMA,
            "sets": [
                {"name": dataset_name(block), "fingerprint": block.get("fingerprint"), "acc_of_reference": acc}
                for block, acc in zip(found.sets, found.accs, strict=True)
            ],
            "reference": found.reference,
            "models": models,
            "left_out": found.left_out,
        }
    )
    return safe
