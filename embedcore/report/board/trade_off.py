"""The charts of acc against a cost, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from embedcore.report.board.front import Axis, comparable, pareto_front, ties, trusted
from embedcore.report.html.chart import (
    ACCENT,
    HEADLINE_HEIGHT,
    HEIGHT,
    Chart,
    Datum,
    Layer,
    ScoreAxis,
    bound,
    intervals,
    labels,
    layer,
    layered,
    points,
    quantity,
    without_overlap,
)

_MOST_NAMES = 12  # of a front, in a note


def trade_off(rows: Sequence[Datum], axis: Axis, levels: Mapping[str, object]) -> Chart | None:
    """acc against speed, parameters or GMACs, with the models on the Pareto front named."""
    shown = comparable(rows, axis)
    if not shown:
        return None
    best = pareto_front(shown, axis)
    values = [math.log10(row[axis.field]) for row in shown]
    low, high = min(values), max(values)
    pad = max(0.05, 0.04 * (high - low))
    scale = {"type": "log", "domain": [10 ** (low - pad), 10 ** (high + pad)], "nice": False}
    x = quantity(axis.field, axis.title, scale=scale, axis={"format": "~s", "tickCount": 6})
    accuracy = ScoreAxis.over(shown, "acc", levels)
    y = accuracy.channel()
    speed = axis.name == "speed"
    valid = f"datum.{axis.field} > 0" + (" && !datum.decayed" if speed else "")
    on_front = f"datum.front && indexof(datum.front, '{axis.name}') >= 0"
    doubtful = len(shown) - len(trusted(shown, axis)) if speed else 0
    data: dict[str, Sequence[Datum]] = {"models": shown}
    between = front_layers(best, axis, x, accuracy, data)
    layers = [
        *accuracy.line_layers(),
        *between,
        *intervals(shown, accuracy.channel("acc_low"), "acc_high", {"x": x}, important=on_front, where=valid),
        *points(x, y, shown, important=on_front, where=valid, hollow="isValid(datum.doubts)" if speed else ""),
        # above the front, where no model can be
        *labels(
            without_overlap(best, shown, height=HEADLINE_HEIGHT),
            x,
            y,
            axis.field,
            10 ** (low + 0.55 * (high - low)),
            up=7,
        ),
    ]
    title = f"acc against {axis.title}"
    return Chart(
        f"acc-{axis.name.lower()}",
        "Cost of accuracy",
        title,
        " ".join(filter(None, _trade_off_notes(rows, shown, best, axis, doubtful, accuracy.note))),
        layered(layers, title, HEIGHT),
        data,
        label=axis.name,
    )


def _trade_off_notes(
    rows: Sequence[Datum], shown: Sequence[Datum], best: Sequence[Datum], axis: Axis, doubtful: int, of_lines: str
) -> Iterator[str]:
    names = ", ".join(row["name"] for row in best[::-1][:_MOST_NAMES])
    more = f" and {len(best) - _MOST_NAMES} more" if len(best) > _MOST_NAMES else ""
    yield f"Blue: the Pareto front; no model beats one of these in both. From the most accurate: {names}{more}."
    if len(best) > 1:
        yield "A line joins neighbours on it whose ranks differ surely; a band covers those that are not told apart."
    if any("acc_low" in row for row in shown):
        yield "Vertical lines are 95 % intervals."
    if axis.name == "speed" and all(row.get("doubts") for row in shown):
        yield "All speeds are doubtful."
    elif doubtful:
        yield f"Outlines are doubtful speeds, which are not on the front: {doubtful:,}."
    yield of_lines
    if len(rows) > len(shown):
        yield f"Models without this figure: {len(rows) - len(shown):,}, not shown."


def front_layers(
    best: Sequence[Datum], axis: Axis, x: Any, accuracy: ScoreAxis, data: dict[str, Sequence[Datum]]
) -> list[Layer]:
    """Return a band over each tie on a front and a line between neighbours that are told apart; their rows are added to
    `data`."""
    groups = list(ties(best))
    lines = [
        {"pair": number, "id": row["id"], axis.field: row[axis.field], "acc": row["acc"]}
        for number, (group, after) in enumerate(pairwise(groups))
        for row in (group[-1], after[0])
    ]
    bands = [
        {
            "from": min(row[axis.field] for row in group),
            "to": max(row[axis.field] for row in group),
            "low": min(bound(row, "acc", "low") for row in group),
            "high": max(bound(row, "acc", "high") for row in group),
        }
        for group in groups
        if len(group) > 1
    ]
    layers: list[Layer] = []
    if bands:
        data["bands"] = bands
        sides = {
            "x": {**x, "field": "from"},
            "x2": {"field": "to"},
            "y": accuracy.channel("low"),
            "y2": {"field": "high"},
        }
        layers.append(layer("rect", sides, data="bands", color=ACCENT, opacity=0.1))
    if lines:
        data["front"] = lines
        stairs: dict[str, Any] = {
            "interpolate": "step-after" if axis.less else "step-before",
            "strokeDash": [4, 3],
            "color": ACCENT,
        }
        channels = {"x": x, "y": accuracy.channel(), "detail": {"field": "pair", "type": "nominal"}}
        layers.append(layer("line", channels, data="front", **stairs))
    return layers
