"""The Pareto front: the models that no other one beats in both a score and a cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

Datum = dict[str, Any]


class Axis(NamedTuple):
    """A quantity that accuracy is plotted against. `less`: whether less of it is better."""

    field: str
    title: str
    less: bool
    name: str


AXES = (
    Axis("images_per_s", "images/s of the forward pass", less=False, name="speed"),
    Axis("params_m", "million parameters", less=True, name="parameters"),
    Axis("gmacs", "GMACs per image", less=True, name="GMACs"),
)


def comparable(rows: Sequence[Datum], axis: Axis) -> list[Datum]:
    """Return the rows with a value that a logarithmic axis can show; a speed in a decayed batch is not comparable."""
    return [row for row in rows if (row.get(axis.field) or 0) > 0 and not (axis.name == "speed" and row.get("decayed"))]


def trusted(rows: Sequence[Datum], axis: Axis) -> list[Datum]:
    """Return the comparable rows; of speeds those without a doubt, or all if every one is doubtful."""
    known = comparable(rows, axis)
    return [row for row in known if axis.name != "speed" or not row.get("doubts")] or known


def pareto_front(rows: Sequence[Datum], axis: Axis, metric: str = "acc") -> list[Datum]:
    """Return the trusted rows that no other one beats in both the score and the quantity of the axis, the best last.

    The first of equal rows counts.
    """
    best = math.inf if axis.less else -math.inf
    found = []
    for row in sorted(trusted(rows, axis), key=lambda row: (-row[metric], row[axis.field] * (1 if axis.less else -1))):
        value = row[axis.field]
        if value < best if axis.less else value > best:
            best = value
            found.append(row)
    return found[::-1]
