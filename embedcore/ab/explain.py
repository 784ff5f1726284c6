"""Explain a drift: trace a model on both sides and find where the change began."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedcore.ab.outcome import Row
from embedcore.compare.causes import rounding
from embedcore.compare.origin import Origin, origin_of
from embedcore.embed.trace import Trace
from embedcore.errors import EmbedcoreError
from embedcore.plain import json_safe

UNMOVED = "in fp32, on the same images, no module's output moved beyond rounding"


TraceOn = Callable[[str, str], Trace]
"""Trace a model, the second argument, on the side ``A`` or ``B``, with the weights of both."""


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


def explanation_of(model: str, trace: TraceOn) -> Explanation:
    """Trace a model on both sides and compare. A model that cannot be traced gives a failure."""
    try:
        return Explanation(model, origin_of(*(trace(side, model) for side in "AB")))
    except EmbedcoreError as error:
        return Explanation(model, None, str(error))


def with_origin(row: Row, precision: str | None, trace: TraceOn) -> Row:
    """Add to a row whose embeddings moved beyond rounding where that began."""
    if row.drift is None or row.drift <= rounding(precision):
        return row
    found = explanation_of(row.model, trace)
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
