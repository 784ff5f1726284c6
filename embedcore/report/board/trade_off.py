"""The charts of the first headline score against a cost, with the Pareto front.

The chart itself computes the front from the models that it shows, so that it follows the filters of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embedcore.report.board.front import Axis, comparable, pareto_front, trusted
from embedcore.report.html.chart import (
    ACCENT,
    HEIGHT,
    LABEL_HEIGHT,
    Channel,
    Chart,
    Datum,
    Layer,
    ScoreAxis,
    derived,
    intervals,
    labels,
    layer,
    layered,
    points,
    quantity,
)
from embedcore.results.headline import LABELLED, UNLABELLED

COSTS = {LABELLED.first: "Cost of accuracy", UNLABELLED.first: "Cost of agreement"}
"""Section of these charts, by the score."""
_MOST_NAMES = 12  # of a front, in a note
_Transform = list[dict[str, Any]]


def trade_off(rows: Sequence[Datum], axis: Axis, levels: Mapping[str, object], metric: str = "acc") -> Chart | None:
    """A score against speed, parameters or GMACs, with the models on the Pareto front named."""
    shown = comparable(rows, axis)
    if not shown:
        return None
    values = [math.log10(row[axis.field]) for row in shown]
    low, high = min(values), max(values)
    pad = max(0.05, 0.04 * (high - low))
    scale = {"type": "log", "domain": [10 ** (low - pad), 10 ** (high + pad)], "nice": False}
    x = quantity(axis.field, axis.title, scale=scale, axis={"format": "~s", "tickCount": 6})
    accuracy = ScoreAxis.over(shown, metric, levels)
    y = accuracy.channel()
    important, hollow = "datum.on_front", "datum.doubtful" if axis.name == "speed" else ""
    middle = 10 ** (low + 0.55 * (high - low))
    named = labels(x, y, axis.field, middle, dy="datum.dy")  # above the front, where no model can be
    layers = [
        derived(_front_layers(axis, x, accuracy), _ties(axis, metric)),
        *intervals(shown, accuracy.channel(f"{metric}_low"), f"{metric}_high", {"x": x}, important=important),
        *points(x, y, shown, important=important, hollow=hollow),
        derived(named, _named(accuracy)),
    ]
    title = f"{metric} against {axis.title}"
    return Chart(
        f"{metric}-{axis.name.lower()}",
        COSTS[metric],
        title,
        " ".join(filter(None, _notes(rows, shown, axis, accuracy))),
        layered([*accuracy.line_layers(), derived(layers, _front(axis, metric))], title, HEIGHT),
        {"models": shown},
        label=axis.name,
    )


def _notes(rows: Sequence[Datum], shown: Sequence[Datum], axis: Axis, score: ScoreAxis) -> Iterator[str]:
    best = pareto_front(shown, axis, score.metric)
    yield "Blue: the Pareto front of the models that are shown; none of the others is better in both."
    if len(best) > 1:
        yield "A line joins neighbours on it whose ranks differ significantly; a band covers those that are tied."
    names = ", ".join(row["name"] for row in best[::-1][:_MOST_NAMES])
    more = f" and {len(best) - _MOST_NAMES} more" if len(best) > _MOST_NAMES else ""
    yield f"The front of all models, the highest score first: {names}{more}."
    if any(f"{score.metric}_low" in row for row in shown):
        yield "Vertical lines are 95 % intervals."
    doubtful = len(shown) - len(trusted(shown, axis))
    if axis.name == "speed" and all(row.get("doubts") for row in shown):
        yield "All speeds are doubtful."
    elif doubtful:
        yield f"Outlines are doubtful speeds, which are not on the front: {doubtful:,}."
    yield score.note
    if len(rows) > len(shown):
        yield f"Models without this figure: {len(rows) - len(shown):,}, not shown."


def _front(axis: Axis, metric: str) -> _Transform:
    """Return the transform that keeps the rows of `comparable` and marks those of `pareto_front` as ``on_front``."""
    speed = axis.name == "speed"
    order = {"sort": [_descending(metric), _descending("gain")], "frame": [None, 0], "ignorePeers": True}
    return [
        {"filter": f"datum.{axis.field} > 0{' && !datum.decayed' if speed else ''}"},
        {"calculate": "isValid(datum.doubts)" if speed else "false", "as": "doubtful"},
        {"joinaggregate": [{"op": "min", "field": "doubtful", "as": "all_doubtful"}]},
        {
            "calculate": f"datum.doubtful && !datum.all_doubtful ? null : {'-' if axis.less else ''}datum.{axis.field}",
            "as": "gain",
        },
        {"window": [{"op": "max", "field": "gain", "as": "best"}], **order},
        {"window": [{"op": "lag", "field": "best", "as": "before"}], **order},
        {"calculate": "isValid(datum.gain) && (!isValid(datum.before) || datum.gain > datum.before)", "as": "on_front"},
    ]


def _ties(axis: Axis, metric: str) -> _Transform:
    """Return the transform that numbers the ties on the front: ``apart`` is true for a model whose rank differs from
    that of its neighbour with a lower score, whose values are in ``before_…``."""
    before = [
        {"op": "lag", "field": field, "as": f"before_{name}"}
        for name, field in (("score", metric), ("cost", axis.field), ("rank", "rank95_low"))
    ]
    order = {"sort": [{"field": metric}], "frame": [None, 0]}
    return [
        {"filter": "datum.on_front"},
        {"window": before, **order},
        {"calculate": "datum.before_rank > datum.rank95_high", "as": "apart"},
        {"window": [{"op": "sum", "field": "apart", "as": "tie"}], **order},
    ]


def _front_layers(axis: Axis, x: Channel, accuracy: ScoreAxis) -> list[Layer]:
    """Return a band over each tie on the front, and stairs between neighbours that differ significantly."""
    y, value = accuracy.channel(), f"datum.{accuracy.metric}"
    band = {"x": x | {"field": "from"}, "x2": {"field": "to"}, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    across = {"x": x, "x2": {"field": "before_cost"}, "y": y | {"field": "before_score"}}
    up = {"x": x, "y": y, "y2": {"field": "before_score"}}
    ends = [("min", axis.field, "from"), ("max", axis.field, "to"), ("min", "low", "low"), ("max", "high", "high")]
    extent: _Transform = [
        *({"calculate": f"isValid({value}_{end}) ? {value}_{end} : {value}", "as": end} for end in ("low", "high")),
        {"joinaggregate": [{"op": "count", "as": "tied"}], "groupby": ["tie"]},
        {"filter": "datum.tied > 1"},
        {"aggregate": [{"op": op, "field": field, "as": name} for op, field, name in ends], "groupby": ["tie"]},
    ]
    stairs: dict[str, Any] = {"where": "datum.apart", "strokeDash": [4, 3], "color": ACCENT}
    return [
        derived([layer("rect", band, color=ACCENT, opacity=0.1)], extent),
        layer("rule", across, **stairs),
        layer("rule", up, **stairs),
    ]


def _named(accuracy: ScoreAxis) -> _Transform:
    """Return the transform that keeps the models with a label and sets its place ``dy``.

    The recommended model and the ends of the front have one, moved up or down if they are close; the others on the
    front have one where there is room.
    """
    value = f"datum.{accuracy.metric}"
    gap = f"{LABEL_HEIGHT * (accuracy.high - accuracy.low):.6g} / height"
    ends = [
        {"op": op, "field": field, "as": name}
        for op, field, name in (("max", "front", "top"), ("min", "front", "end"), ("max", "recommended", "take"))
    ]
    order = [_descending(accuracy.metric)]
    near = {"window": [{"op": op, "field": accuracy.metric, "as": op} for op in ("lag", "lead")], "sort": order}
    up = f"datum.place == 1 && datum.labels > 2 && {value} - datum.lead < {gap}"
    down = f"datum.place > 1 && datum.place == datum.labels && datum.lag - {value} < {gap}"
    far = " && ".join(f"!(abs({value} - datum.{other}) < {gap})" for other in ("top", "end", "take"))
    return [
        {"filter": "datum.on_front || datum.taken"},
        {"calculate": f"datum.on_front ? {value} : null", "as": "front"},
        {"calculate": f"datum.taken ? {value} : null", "as": "recommended"},
        {"joinaggregate": ends},
        {"calculate": "datum.taken || datum.front === datum.top || datum.front === datum.end", "as": "always"},
        {"joinaggregate": [{"op": "count", "as": "labels"}], "groupby": ["always"]},
        {**near, "groupby": ["always"]},
        {"window": [{"op": "row_number", "as": "place"}], "sort": order, "groupby": ["always"]},
        {"filter": f"datum.always || ({far} && (!isValid(datum.lag) || datum.lag - {value} >= {gap}))"},
        {"calculate": f"datum.always && ({up}) ? -21 : datum.always && ({down}) ? 14 : -7", "as": "dy"},
    ]


def _descending(field: str) -> dict[str, str]:
    return {"field": field, "order": "descending"}
