"""The chart type and the parts that charts share, as parts of a Vega-Lite specification.

A specification names its rows as the dataset ``models``, so that a page holds them once for all charts. The parameter
``family`` holds the slug of the highlighted family ("" for none), ``back`` the page's background colour. Marks are grey
except those that matter, the user's own models and the highlighted family.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedcore.report.html.drawing import Spec
from embedcore.results.headline import headline_of

Datum = dict[str, Any]
Layer = dict[str, Any]
Channel = dict[str, Any]
Filter = str | Mapping[str, Any]
"""An expression or a predicate; "" keeps all rows."""

FIRST, SECOND = "@first", "@second"
"""Placeholders in a specification for the names of two models; the page replaces them."""

# Paul Tol's colour-blind safe "vibrant" scheme (https://sronpersonalpages.nl/~pault/), with plum for its grey, whose
# contrast to white is too low.
COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377", "#883377")
ACCENT, HIGHLIGHTED, OWN, WORSE = COLOURS[:4]
GREY = "#8a9099"  # with a contrast of 3 to a white and to a dark page

_WIDTH, HEIGHT = 720, 440
HEADLINE_HEIGHT = 210
"""Highest chart on the first screen of a page, in pixels."""
LABEL_HEIGHT = 14
"""Pixels between two labels."""
MANY_MARKS = 200  # models; more are drawn as smaller marks, and only those that stand out have intervals
_HIGHLIGHTED_ROW = "family && datum.family == family"
_LEAST_RANGE = 0.02  # of an axis of scores, so that equal models are not drawn far apart


@dataclass(frozen=True)
class Chart:
    """One chart of a page. `name`: also that of its file; `label`: of its option in the choice of a `section`."""

    name: str
    section: str
    title: str
    note: str
    """A note on how to read it."""
    spec: Spec
    data: Mapping[str, Sequence[Datum]]
    """The datasets that the specification names; ``models`` has the rows that it shows."""
    label: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    """Values of `FIRST` and `SECOND`."""
    has_file: bool = False
    """Whether the report folder has it as SVG; the page can save every chart."""

    @property
    def standalone(self) -> Spec:
        """The specification with the fields of its datasets that it uses."""
        text = json.dumps(self.spec)
        datasets = {}
        for name, rows in self.data.items():
            keys = {key for key in set().union(*rows) if key in text}
            datasets[name] = [{key: row[key] for key in keys & row.keys()} for row in rows]
        return self.spec | {"datasets": datasets}


def layer(
    mark: str,
    encoding: Mapping[str, Any],
    *,
    data: str | Sequence[Datum] = "models",
    where: Filter = "",
    above: str = "",
    **properties: Any,
) -> Layer:
    """Return a layer of marks. `data`: name of a dataset, or rows; `where`: filter of the rows; `above`: expression for
    those that are drawn above the others; `properties`: of the mark."""
    source = {"name": data} if isinstance(data, str) else {"values": list(data)}
    transform: list[Any] = [{"filter": where}] if where else []
    if above:
        transform.append({"calculate": f"({above}) ? 1 : 0", "as": "above"})
        encoding = {**encoding, "order": {"field": "above", "type": "quantitative"}}
    transformed = {"transform": transform} if transform else {}
    return {"data": source, **transformed, "mark": {"type": mark, **properties}, "encoding": dict(encoding)}


def derived(layers: Iterable[Layer], transform: Sequence[Mapping[str, Any]]) -> Layer:
    """Return layers of the rows of ``models`` after a transform; those of other datasets are left as they are."""
    models = {"name": "models"}
    kept = [{key: value for key, value in each.items() if value != models} for each in layers]
    return {"data": models, "transform": list(transform), "layer": kept}


def layered(layers: Iterable[Layer], title: str, height: int, subtitle: str = "") -> Spec:
    return {
        "width": _WIDTH,
        "height": height,
        "title": {"text": title, "subtitle": subtitle} if subtitle else title,
        "params": [{"name": "family", "value": ""}, {"name": "back", "value": "white"}],
        "layer": list(layers),
    }


def quantity(name: str, title: str = "", **options: Any) -> Channel:
    """Return a channel of numbers: the field `name`."""
    return {"field": name, "type": "quantitative", "title": title or name, **options}


def category(name: str, title: str = "") -> Channel:
    return {"field": name, "type": "nominal", "title": title or name}


def names_down(field: str = "name", order: Sequence[str] | None = None) -> Channel:
    """Return an axis with a line for each name, in `order` or that of the rows."""
    return {
        "field": field,
        "type": "nominal",
        "title": None,
        "sort": None if order is None else list(order),
        "axis": {"ticks": False, "domain": False},
    }


def only(rows: Sequence[Datum]) -> Mapping[str, Any]:
    """Return a filter for these rows of the page, by their ``id``."""
    return {"field": "id", "oneOf": [row["id"] for row in rows]}


def both(*filters: Filter) -> Filter:
    """Return a filter for the rows that all of these keep; "" keeps all."""
    found = [each for each in filters if each]
    return {"and": found} if len(found) > 1 else found[0] if found else ""


def emphasis(important: str = "", colour: str = ACCENT) -> dict[str, Any]:
    """Return the channels that draw marks grey, except the highlighted family, own models and those for which the
    expression `important` holds. A highlighted family dims all others."""
    tests = [(_HIGHLIGHTED_ROW, HIGHLIGHTED), (important, colour), ("datum.own", OWN)]
    conditions = [{"test": test, "value": value} for test, value in tests if test]
    return {
        "color": {"condition": conditions, "value": GREY},
        "opacity": {"condition": {"test": "!family || datum.family == family", "value": 0.9}, "value": 0.12},
    }


def stands_out(important: str = "") -> str:
    """Return the filter for the marks that `emphasis` does not draw grey."""
    return " || ".join(f"({test})" for test in (_HIGHLIGHTED_ROW, "datum.own", important) if test)


def points(
    x: Channel,
    y: Channel,
    rows: Sequence[Datum],
    *,
    important: str = "",
    colour: str = ACCENT,
    where: Filter = "",
    hollow: str = "",
    **more: Any,
) -> list[Layer]:
    """Return points, smaller if there are many, with those that stand out above the others; own models are diamonds.

    `important`, `hollow`: expressions for the points of this `colour`, and those drawn as an outline; `more`: further
    channels.
    """
    shape = {"condition": {"test": "datum.own", "value": "diamond"}, "value": "circle"}
    channels = {"x": x, "y": y, "tooltip": tooltip(rows), "shape": shape, **emphasis(important, colour), **more}
    size = 70 if len(rows) < MANY_MARKS else 30
    kinds = [(f"!({hollow})", True), (hollow, False)] if hollow else [("", True)]
    above = stands_out(important)
    return [
        layer("point", channels, where=both(where, kind), above=above, filled=filled, size=size)
        for kind, filled in kinds
    ]


def intervals(
    rows: Sequence[Datum],
    low: Channel,
    high: str,
    across: Mapping[str, Channel],
    *,
    important: str = "",
    colour: str = ACCENT,
    where: Filter = "",
) -> list[Layer]:
    """Return lines from the field of `low` to the field `high`, none if no row has them; if there are many models, only
    for those that stand out. `across`: the other channel, as x or y."""
    start = low["field"]
    if not any(start in row for row in rows):
        return []
    along = "y" if "x" in across else "x"
    channels = {**across, along: low, f"{along}2": {"field": high}, **emphasis(important, colour)}
    few = "" if len(rows) < MANY_MARKS else stands_out(important)
    where = both(where, f"isValid(datum['{start}'])", few)
    return [layer("rule", channels, where=where, strokeWidth=1.2, strokeOpacity=0.6)]


def tooltip(rows: Sequence[Datum]) -> list[Channel]:
    """Return the channels of the tooltip of these rows."""
    return [
        category("name", "model"),
        category("title", "family"),
        *(quantity(score, format=".3f") for score in headline_of(rows[0] if rows else ())),
        quantity("params_m", "million parameters", format=".3~s"),
        quantity("gmacs", "GMACs", format=".3~s"),
        quantity("images_per_s", "images/s", format=".3~s"),
        category("pretraining"),
        category("marks"),
    ]


def labels(x: Channel, y: Channel, field: str, middle: float, *, where: Filter = "", dy: int | str = 0) -> list[Layer]:
    """Return the names of models beside their marks, with a halo so that they can be read above other marks.

    They extend to the right up to `middle` of `field`, beyond it to the left, and are cut where the chart ends. `dy`:
    pixels downwards, or an expression for them.
    """
    left, at = f"datum['{field}'] <= {middle}", f"scale('x', datum['{field}'])"
    text: dict[str, Any] = {
        "align": {"expr": f"{left} ? 'left' : 'right'"},
        "dx": {"expr": f"{left} ? 8 : -8"},
        "dy": {"expr": f"{dy}"},
        "limit": {"expr": f"max(80, ({left} ? width - {at} : {at}) - 8)"},
    }
    channels = {"x": x, "y": y, "text": category("name")}
    return [layer("text", channels, where=where, **text, **halo) for halo in (_HALO, {})]


_HALO: Mapping[str, Any] = {"stroke": {"expr": "back"}, "strokeWidth": 4, "strokeJoin": "round", "opacity": 0.85}


@dataclass(frozen=True)
class ScoreAxis:
    """An axis over the range of a metric's scores and intervals, with lines such as that of chance.

    A line is drawn if it lengthens the axis by at most half; otherwise `note` states it.
    """

    metric: str
    low: float
    high: float
    lines: Mapping[str, float]
    """Those that are drawn, by name."""
    note: str
    grows: bool = False
    """Whether it also covers lower scores, which the filters of a page may leave."""

    @classmethod
    def over(
        cls, rows: Sequence[Datum], metric: str, levels: Mapping[str, object], *, grows: bool = False
    ) -> ScoreAxis:
        """Return the axis of these rows; `levels`: name → score, or anything else if it is unknown."""
        low, high = extent(rows, metric)
        known = {name: value for name, value in levels.items() if isinstance(value, int | float)}
        reach = max(high - low, _LEAST_RANGE) / 2
        near = {name: value for name, value in known.items() if low - reach <= value <= high + reach}
        far = [
            f"{name.capitalize()} ({value:.3g}) is {'below' if value < low else 'above'} this axis."
            for name, value in known.items()
            if name not in near
        ]
        low, high = min(low, *near.values(), low), max(high, *near.values(), high)
        pad = 0.03 * (high - low) + max(0.0, _LEAST_RANGE - (high - low)) / 2
        return cls(metric, low - pad, high + pad, near, " ".join(far), grows)

    def channel(self, field: str = "") -> Channel:
        """Return the channel of the metric, or of another `field` on the same axis."""
        domain: list[Any] = [self.low, self.high]
        if self.grows:
            shown = [f"extent(pluck(data('models'), '{name}'))" for name in (self.metric, f"{self.metric}_low")]
            ends = ", ".join(f"isNumber({found}[0]) ? {found}[0] : {self.low}" for found in shown)
            domain[0] = {"expr": f"min({self.low}, {ends})"}
        scale = {"domain": domain, "nice": False, "zero": False}
        return quantity(field or self.metric, self.metric, scale=scale, axis={"format": ".3~f"})

    def line_layers(self, *, x: bool = False) -> list[Layer]:
        """Return the lines with their names; `x`: on a horizontal axis."""
        if not self.lines:
            return []
        rows = [{"at": value, "line": f"{name} {value:.3g}"} for name, value in self.lines.items()]
        at, end = ("x", "y") if x else ("y", "x")
        left = f"datum.at <= {(self.low + self.high) / 2:.6g}"
        place: dict[str, Any] = {"align": "right", "dx": -2, "dy": -6}
        if x:
            place = {"align": {"expr": f"{left} ? 'left' : 'right'"}, "dx": {"expr": f"{left} ? 4 : -4"}, "dy": 8}
        channels = {at: self.channel("at"), "text": category("line"), end: {"value": 0 if x else "width"}}
        return [
            layer("rule", {at: self.channel("at")}, data=rows, strokeDash=[2, 3], opacity=0.8),
            layer("text", channels, data=rows, fontSize=10, opacity=0.8, **place),
        ]


def extent(rows: Iterable[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    """Return the lowest and the highest end of the intervals of a score; rows without it do not count."""
    scored = [row for row in rows if metric in row]
    lows, highs = ([row.get(f"{metric}_{end}", row[metric]) for row in scored] for end in ("low", "high"))
    return min(lows), max(highs)


def scores_with_padding(field: str, padding: int = 12) -> Channel:
    """Return an axis of scores with `padding` pixels beyond the lowest and the highest."""
    return quantity(field, scale={"zero": False, "nice": False, "padding": padding}, axis={"format": ".3~f"})


def without_overlap(
    named: Sequence[Datum], rows: Sequence[Datum], field: str = "acc", always: Sequence[Datum] = ()
) -> list[Datum]:
    """Return `always` and those of `named` whose labels do not overlap in a chart of `rows` with `field` upwards, the
    highest first."""
    low, high = extent(rows, field)
    gap = LABEL_HEIGHT / HEIGHT * (high - low)
    kept = [*always]
    for row in sorted(named, key=lambda row: -row[field]):
        if all(abs(other[field] - row[field]) >= gap and other is not row for other in kept):
            kept.append(row)
    return kept
