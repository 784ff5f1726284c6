"""What becomes of stored embeddings, as text and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from embedcore.compare.compatibility import Compatibility
from embedcore.compare.labelled_retrieval import METRICS
from embedcore.compare.stored_embeddings import StoredEmbeddings
from embedcore.plain import counted, json_safe, one_line, wrapped
from embedcore.report.gate.comparison_text import points

SCHEMA = 1

_COLUMNS = {
    "old_old": "old-old",
    "new_new": "new-new",
    "new_old": "new-old",
    "reembedded_10": "10 %",
    "reembedded_50": "50 %",
    "reembedded_90": "90 %",
    "rotated": "rotated",
}
_LEGEND = (
    "Queries-references: old-old is the index as it was, new-old new queries in the old index, 10 % the same with a "
    "tenth of the references embedded again, rotated new-old through the map, fitted on other classes."
)
_MOST_DETAILS = 20  # models in the terminal


def answers_text(answers: Sequence[StoredEmbeddings], width: int) -> str:
    """Return an answer for each model, then the scores of those whose embeddings changed."""
    counts = [
        f"{word} {number}"
        for word in ("keep", "rotate", "re-embed", "unknown")
        if (number := sum(answer.advice == word for answer in answers))
    ]
    blocks = ["\n".join(wrapped(line_of(answer), width) for answer in answers)]
    changed = [(answer.model, found) for answer in answers if (found := answer.found) is not None and not found.equal]
    if changed:
        tables = ["\n".join(_table(model, found)) for model, found in changed[:_MOST_DETAILS]]
        rest = len(changed) - _MOST_DETAILS
        more = [f"… {rest} more; --format json has all"] if rest > 0 else []
        blocks += [*tables, *more, wrapped(_LEGEND, width)]
    return "\n\n".join([*blocks, f"{counted(len(answers), 'index', 'indexes')}: {', '.join(counts)}"])


def line_of(answer: StoredEmbeddings) -> str:
    """Return a model's answer and its reason on one line."""
    model, found = one_line(answer.model), answer.found
    if found is None:
        return f"{model}: unknown: {answer.why}"
    if found.equal:
        return f"{model}: keep: the embeddings are equal"
    if "new_old" not in found.searches:
        return f"{model}: re-embed: the embeddings have another width"
    if found.advice == "keep":
        return f"{model}: keep: {_change(found, 'new_old')}"
    if found.advice == "rotate":
        return f"{model}: rotate by {answer.file}: {_change(found, 'rotated')}; as it is {_score(found, 'new_old')}"
    if found.certain:
        return f"{model}: re-embed: {_change(found, 'new_old')}; rotated {_score(found, 'rotated')}"
    limits = " and ".join(f"{100 * limit:g} pt {metric}" for metric, limit in found.tolerances.items())
    return f"{model}: re-embed, or try more images: {_change(found, 'new_old')}; losing {limits} is not excluded"


def _change(found: Compatibility, search: str) -> str:
    """Return the change of the metric that decides: ``acc 0.262 → 0.261, -0.1 pt [-0.3, +0.1]``."""
    scores = found.searches[search]
    metric = scores.beyond(found.tolerances) or "acc"
    change, low, high, _ = scores.changes[metric]
    old, now = found.searches["old_old"].scores[metric], scores.scores[metric]
    return f"{metric} {old:.3f} → {now:.3f}, {points(-change)} pt [{points(-low)}, {points(-high)}]"


def _score(found: Compatibility, search: str) -> str:
    return f"acc {found.searches[search].scores['acc']:.3f}"


def _table(model: str, found: Compatibility) -> Iterator[str]:
    known = [name for name in _COLUMNS if name in found.searches]
    yield one_line(model)
    yield "  ".join([" " * 10, *(f"{_COLUMNS[name]:>7}" for name in known)]).rstrip()
    for metric in METRICS:
        values = (f"{found.searches[name].scores[metric]:>7.3f}" for name in known)
        yield "  ".join([f"  {metric:8}", *values])


def answers_json(answers: Sequence[StoredEmbeddings]) -> list[dict[str, Any]]:
    """Return every answer with all its numbers."""
    rows: list[dict[str, Any]] = json_safe([_row(answer) for answer in answers])
    return rows


def _row(answer: StoredEmbeddings) -> dict[str, Any]:
    found = answer.found
    row = {"model": answer.model, "advice": answer.advice, "line": line_of(answer), "why": answer.why}
    if found is None:
        return row
    return row | {
        "certain": found.certain,
        "equal": found.equal,
        "distance": found.distance,
        "matrix": None if answer.file is None else str(answer.file),
        "tolerances": found.tolerances,
        "searches": {
            name: {
                "scores": search.scores,
                "changes": {metric: change._asdict() for metric, change in search.changes.items()},
            }
            for name, search in found.searches.items()
        },
    }
