"""The chart type and the parts that charts share.

A specification names its rows as the dataset ``models``, so that a page holds them once for all charts. The parameter
``family`` holds the slug of the highlighted family ("" for none), ``back`` the page's background colour.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedcore.report.html.drawing import Spec
from embedcore.report.html.theme import theme_of

alt: Any = importlib.import_module("altair")
"""Altair, untyped: mypy cannot check its chains of calls."""

Datum = dict[str, Any]

FIRST, SECOND = "@first", "@second"
"""Placeholders in a specification for the names of two models; the page replaces them."""

_WIDTH, HEIGHT = 720, 440
_LABEL_HEIGHT = 14  # pixels
MANY_MARKS = 200  # models; more are drawn as smaller marks


@dataclass(frozen=True)
class Chart:
    """One chart of a page. `name`: also that of its file; `label`: to choose it by among those of its `section`."""

    name: str
    section: str
    title: str
    note: str
    """A note on how to read it."""
    spec: Spec
    data: Mapping[str, Sequence[Datum]]
    """The datasets that the specification names; of ``models`` the rows that it shows."""
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
        return self.spec | {"datasets": self.spec.get("datasets", {}) | datasets}


def family_encodings(rows: Sequence[Datum]) -> dict[str, Any]:
    """Encodings that give each family its colour and shape, and dim all families but the highlighted one."""
    themes = {str(row["title"]): theme_of(row["family"]) for row in rows}
    colours = alt.Scale(domain=list(themes), range=[theme.colour for theme in themes.values()])
    shapes = alt.Scale(domain=list(themes), range=[theme.shape for theme in themes.values()])
    return {
        "color": alt.Color("title:N", title="family", scale=colours),
        "opacity": alt.condition("!family || datum.family == family", alt.value(0.9), alt.value(0.12)),
        "shape": alt.Shape("title:N", title="family", scale=shapes),
    }


def all_rows() -> Any:
    """Return a chart of all rows of the page."""
    return alt.Chart(alt.NamedData(name="models"))


def only_rows(rows: Sequence[Datum]) -> Any:
    """Return a chart of these rows of the page, selected by their ``id``."""
    return all_rows().transform_filter(alt.FieldOneOfPredicate(field="id", oneOf=[row["id"] for row in rows]))


def points(base: Any, rows: Sequence[Datum]) -> Any:
    """Return filled points, smaller if there are many."""
    return base.mark_point(filled=True, size=90 if len(rows) < MANY_MARKS else 40)


def tooltip() -> list[Any]:
    return [
        alt.Tooltip("name:N", title="model"),
        alt.Tooltip("title:N", title="family"),
        alt.Tooltip("acc:Q", format=".3f"),
        alt.Tooltip("acc5:Q", format=".3f"),
        alt.Tooltip("params_m:Q", title="million parameters", format=".3~s"),
        alt.Tooltip("gmacs:Q", title="GMACs", format=".3~s"),
        alt.Tooltip("images_per_s:Q", title="images/s", format=".3~s"),
        alt.Tooltip("pretraining:N"),
    ]


def layered(layers: Iterable[Any], title: str, height: int, subtitle: str = "") -> Spec:
    heading = alt.TitleParams(title, subtitle=subtitle) if subtitle else title
    drawn = alt.layer(*layers).properties(width=_WIDTH, height=height, title=heading)
    drawn = drawn.add_params(alt.param(name="family", value=""), alt.param(name="back", value="white"))
    spec: Spec = drawn.to_dict(validate=False)  # validation takes most of the time
    return spec


def labels(rows: Sequence[Datum], x: Any, y: Any, field: str, middle: float, *, up: int = 0) -> list[Any]:
    """Return the names of some models beside their marks, with a halo so that they can be read above other marks. They
    extend to the right up to `middle` of `field`, beyond it to the left, so that none leaves the chart."""
    layers = []
    for left in (True, False):
        of_side = [row for row in rows if (row[field] <= middle) == left]
        if of_side:
            text = {"align": "left" if left else "right", "dx": 8 if left else -8, "dy": -up, "limit": 300}
            halo = {"stroke": alt.ExprRef("back"), "strokeWidth": 4, "strokeJoin": "round", "opacity": 0.85}
            base = only_rows(of_side).encode(x, y, text="name:N")
            layers += [base.mark_text(**text, **halo), base.mark_text(**text)]
    return layers


def score_axis(field: str, title: str | None = None, *, zero: bool = False, x: bool = False, padding: int = 12) -> Any:
    """Return an axis of scores with `padding` pixels beyond the lowest and the highest."""
    scale = alt.Scale(zero=True) if zero else alt.Scale(zero=False, nice=False, padding=padding)
    return (alt.X if x else alt.Y)(f"{field}:Q", title=title or field, scale=scale, axis=alt.Axis(format=".3~f"))


def name_axis(field: str = "name", order: Sequence[str] | None = None) -> Any:
    """Return an axis with a line for each name, in `order` or that of the rows."""
    return alt.Y(f"{field}:N", title=None, sort=order, axis=alt.Axis(ticks=False, domain=False))


def without_overlap(named: Sequence[Datum], rows: Sequence[Datum], field: str = "acc") -> list[Datum]:
    """Return those of `named` whose labels do not overlap in a chart of `rows` with `field` upwards, highest first."""
    heights = [row[field] for row in rows]
    scale = HEIGHT / ((max(heights) - min(heights)) or 1)
    kept: list[Datum] = []
    for row in sorted(named, key=lambda row: -row[field]):
        if not kept or (kept[-1][field] - row[field]) * scale >= _LABEL_HEIGHT:
            kept.append(row)
    return kept
