"""What a chart is, and the parts that charts have in common.

The rows of a chart are not in its specification, which names them as the dataset ``models``: the page has them once.
The parameter ``family`` holds the slug of the family that stands out, "" for none; ``back`` the colour of the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedcore.report.html.drawing import Spec, spec_of
from embedcore.report.html.theme import look_of

Datum = dict[str, Any]

FIRST, SECOND = "@first", "@second"
"""Stand for the names of two models in a specification, which the page puts in."""

_WIDTH, HEIGHT = 720, 440
_LINE = 14  # pixels that a label takes
MANY_MARKS = 200  # models whose marks are small


@dataclass(frozen=True)
class Chart:
    """`name`: of its files and of its place in the page. `section`: the heading that it stands under, with `label` to
    choose it by where there are several."""

    name: str
    section: str
    title: str
    note: str
    """What it shows and how to read it."""
    spec: Spec
    data: Mapping[str, Sequence[Datum]]
    """What the specification names; of ``models`` the rows that it shows."""
    label: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    """What stands for `FIRST` and `SECOND`."""
    of_family: bool = False
    """Of which there may be very many."""

    @property
    def whole(self) -> Spec:
        """The specification with its data, as far as it mentions them."""
        spec: Spec = filled(self.spec, self.names) if self.names else self.spec
        text = json.dumps(spec)
        datasets = {}
        for name, rows in self.data.items():
            keys = {key for key in set().union(*rows) if key in text}
            datasets[name] = [{key: row[key] for key in keys & row.keys()} for row in rows]
        return spec | {"datasets": spec.get("datasets", {}) | datasets}


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """A specification with names for what stands for them in its texts."""
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    return re.sub("|".join(names), lambda found: names[found[0]], value) if isinstance(value, str) else value


def looks(alt: Any, rows: Sequence[Datum]) -> dict[str, Any]:
    """Encodings by which each family has its colour and its shape."""
    families = {str(row["title"]): look_of(row["family"]) for row in rows}
    scales = {
        "color": alt.Scale(domain=list(families), range=[look.colour for look in families.values()]),
        "shape": alt.Scale(domain=list(families), range=[look.shape for look in families.values()]),
    }
    return {
        "color": alt.Color("title:N", title="family", scale=scales["color"]),
        "opacity": alt.condition("!family || datum.family == family", alt.value(0.9), alt.value(0.12)),
        "shape": alt.Shape("title:N", title="family", scale=scales["shape"]),
    }


def all_rows(alt: Any) -> Any:
    """A chart of all the page's rows."""
    return alt.Chart(alt.NamedData(name="models"))


def only_rows(alt: Any, rows: Sequence[Datum]) -> Any:
    """A chart of these few of the page's rows."""
    return all_rows(alt).transform_filter(alt.FieldOneOfPredicate(field="id", oneOf=[row["id"] for row in rows]))


def tooltip(alt: Any) -> list[Any]:
    return [
        alt.Tooltip("name:N", title="model"),
        alt.Tooltip("title:N", title="family"),
        alt.Tooltip("acc:Q", format=".3f"),
        alt.Tooltip("acc5:Q", format=".3f"),
        alt.Tooltip("params:Q", title="million parameters", format=".3~s"),
        alt.Tooltip("gmacs:Q", title="GMACs", format=".3~s"),
        alt.Tooltip("speed:Q", title="images/s", format=".3~s"),
        alt.Tooltip("pretraining:N"),
    ]


def layered(alt: Any, layers: Iterable[Any], title: str, height: int, subtitle: str = "") -> Spec:
    heading = alt.TitleParams(title, subtitle=subtitle) if subtitle else title
    drawn = alt.layer(*layers).properties(width=_WIDTH, height=height, title=heading)
    return spec_of(drawn.add_params(alt.param(name="family", value=""), alt.param(name="back", value="white")))


def labels(alt: Any, rows: Sequence[Datum], x: Any, y: Any, *, left: bool, up: int = 0) -> list[Any]:
    """The names of some models beside their marks, readable above other marks."""
    if not rows:
        return []
    text = {"align": "left" if left else "right", "dx": 8 if left else -8, "dy": -up, "limit": 300}
    halo = {"stroke": alt.ExprRef("back"), "strokeWidth": 4, "strokeJoin": "round", "opacity": 0.85}
    base = only_rows(alt, rows).encode(x, y, text="name:N")
    return [base.mark_text(**text, **halo), base.mark_text(**text)]


def score_axis(
    alt: Any, field: str, title: str | None = None, *, zero: bool = False, x: bool = False, padding: int = 12
) -> Any:
    """An axis of scores, with so many pixels beyond the lowest and the highest."""
    scale = alt.Scale(zero=True) if zero else alt.Scale(zero=False, nice=False, padding=padding)
    return (alt.X if x else alt.Y)(f"{field}:Q", title=title or field, scale=scale, axis=alt.Axis(format=".3~f"))


def name_axis(alt: Any, field: str = "name", order: Sequence[str] | None = None) -> Any:
    """A line for each name, in this order or that of the rows."""
    return alt.Y(f"{field}:N", title=None, sort=order, axis=alt.Axis(ticks=False, domain=False))


def told_apart(named: Sequence[Datum], rows: Sequence[Datum], field: str = "acc") -> list[Datum]:
    """Those whose labels do not cover each other in a chart of `rows` with `field` upwards, the highest kept first."""
    heights = [row[field] for row in rows]
    scale = HEIGHT / ((max(heights) - min(heights)) or 1)
    kept: list[Datum] = []
    for row in sorted(named, key=lambda row: -row[field]):
        if not kept or (kept[-1][field] - row[field]) * scale >= _LINE:
            kept.append(row)
    return kept
