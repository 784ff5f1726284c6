"""Explain a drift: trace a model on both sides and find where the change began."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from embedcore.ab.outcome import Row
from embedcore.compare.causes import rounding
from embedcore.compare.origin import Origin, origin_of
from embedcore.embed.trace import Trace
from embedcore.errors import EmbedcoreError
from embedcore.plain import json_safe

UNMOVED = "in fp32, on the same images, no module's output moved beyond rounding"


class Traces(Protocol):
    """Traces a model on one of the sides ``A`` and ``B``, with the weights of both."""

    def trace(self, side: str, model: str) -> Trace: ...


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Where the change of one model began."""

    model: str
    origin: Origin | None
    failure: str = ""
    """Why the model could not be traced."""

    def text(self) -> str:
        """Return one line."""
        return self.failure or (self.origin.text() if self.origin else UNMOVED)


def explanation_of(model: str, traces: Traces) -> Explanation:
    """Trace a model on both sides and compare. A model that cannot be traced gives a failure."""
    try:
        return Explanation(model, origin_of(*(traces.trace(side, model) for side in "AB")))
    except EmbedcoreError as error:
        return Explanation(model, None, str(error))


def with_origins(rows: Iterable[Row], precisions: Mapping[str, str | None], traces: Traces) -> tuple[Row, ...]:
    """Add to each row whose embeddings moved beyond rounding where that began."""
    return tuple(_with_origin(row, precisions.get(row.model), traces) for row in rows)


def _with_origin(row: Row, precision: str | None, traces: Traces) -> Row:
    if row.drift is None or row.drift <= rounding(precision):
        return row
    found = explanation_of(row.model, traces)
    return dataclasses.replace(row, origin=found.origin, notes=(*row.notes, found.text()))


def as_json(sides: Mapping[str, str], explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Return the explanations for other programs."""
    rows = [
        {"model": e.model, "origin": e.origin.to_json() if e.origin else None, "failure": e.failure or None}
        for e in explanations
    ]
    found: dict[str, Any] = json_safe({"sides": sides, "models": rows})
    return found


def as_text(sides: Mapping[str, str], explanations: Sequence[Explanation]) -> str:
    """Return the sides and a line for each model."""
    lines = [f"{side} {name}" for side, name in sides.items()]
    return "\n".join([*lines, "", *(f"{found.model}: {found.text()}" for found in explanations)])
