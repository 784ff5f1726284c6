"""The charts of a leaderboard, each one Altair specification: for the page, where it is interactive, and for files."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from embedcore.report.board.columns import cut
from embedcore.report.board.findings import disagreements
from embedcore.report.html.chart import (
    FIRST,
    HEIGHT,
    MANY_MARKS,
    SECOND,
    Chart,
    Datum,
    all_rows,
    filled,
    labels,
    layered,
    looks,
    name_axis,
    only_rows,
    score_axis,
    told_apart,
    tooltip,
)
from embedcore.report.html.drawing import Spec, altair
from embedcore.report.html.theme import look_of
from embedcore.results.agreement import kendall_tau
from embedcore.results.class_table import ClassTable
from embedcore.results.leaderboard import Group, Leaderboard

LEADERS = 30
_STEP = 17  # pixels of a line
_LONGEST = 44  # characters of a label
_MOST_ARCHITECTURES = 30
# The same network under the name of another library, or with another padding.
_ALIASES = ("gluon_", "legacy_", "tf_")


def charts(board: Leaderboard, rows: Sequence[Datum], table: ClassTable | None) -> list[Chart]:
    """All charts in which there is something to see. `rows`: of the board, see `embedcore.report.board.rows`."""
    # Altair checks every part of a chart against the schema as it is put together, which takes most of the time.
    with altair().utils.schemapi.debug_mode(False):
        found = [
            leaders(rows, "acc"),
            leaders(rows, "acc5"),
            *(trade_off(rows, axis) for axis in AXES),
            acc_and_acc5(rows, table),
            within_families(rows),
            pretraining(rows),
            two_models(rows, table),
            *families(board.groups, rows),
        ]
    return [chart for chart in found if chart is not None]


def leaders(rows: Sequence[Datum], metric: str) -> Chart | None:
    """The best overall by a metric, with their intervals."""
    alt = altair()
    shown = sorted(rows, key=lambda row: row["rank" if metric == "acc" else f"rank_{metric}"])[:LEADERS]
    if not shown:
        return None
    base = only_rows(alt, shown)
    y = name_axis(alt, order=[row["name"] for row in shown])
    layers = [base.mark_point(filled=True, size=90).encode(score_axis(alt, metric, x=True), y, tooltip=tooltip(alt))]
    layers[0] = layers[0].encode(**looks(alt, shown))
    if any(f"{metric}_low" in row for row in shown):
        rules = base.mark_rule(size=1.5).encode(alt.X(f"{metric}_low:Q", title=metric), y, alt.X2(f"{metric}_high:Q"))
        layers.insert(0, rules)
    count = "models" if len(shown) == len(rows) else f"best {len(shown)} of {len(rows):,} models"
    return Chart(
        f"leaders-{metric}",
        "Leaders",
        f"The {count} by {metric}",
        "Lines are 95 % intervals, from resampling the classes. Models whose lines overlap widely may be equally good.",
        layered(alt, layers, f"The {count} by {metric}", _STEP * len(shown)),
        {"models": shown},
        label=f"by {metric}",
    )


class Axis(NamedTuple):
    """What accuracy is weighed against. `less`: whether less of it is better."""

    field: str
    title: str
    less: bool


AXES = (
    Axis("speed", "images/s of the forward pass", False),
    Axis("params", "million parameters", True),
    Axis("gmacs", "GMACs of an image", True),
)


def front(rows: Sequence[Datum], axis: Axis) -> list[Datum]:
    """The rows than which none is better in acc without being worse on the axis or the other way, the best by acc last.

    Rows that lack a value are passed over; of equal ones the first is taken.
    """
    best = math.inf if axis.less else -math.inf
    found = []
    for row in sorted(_with(rows, axis), key=lambda row: (-row["acc"], row[axis.field] * (1 if axis.less else -1))):
        value = row[axis.field]
        if value < best if axis.less else value > best:
            best = value
            found.append(row)
    return found[::-1]


def _with(rows: Sequence[Datum], axis: Axis) -> list[Datum]:
    """The rows that have a value on a logarithmic axis; a speed in a smaller batch than that of the others is none."""
    return [
        row for row in rows if (row.get(axis.field) or 0) > 0 and not (axis.field == "speed" and row.get("decayed"))
    ]


def trade_off(rows: Sequence[Datum], axis: Axis) -> Chart | None:
    """acc against speed, parameters or GMACs, with the front named."""
    alt = altair()
    shown = _with(rows, axis)
    if not shown:
        return None
    best = front(shown, axis)
    values = [math.log10(row[axis.field]) for row in shown]
    low, high = min(values), max(values)
    pad = max(0.05, 0.04 * (high - low))
    domain = [10 ** (low - pad), 10 ** (high + pad)]
    x = alt.X(
        f"{axis.field}:Q",
        title=axis.title,
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(format="~s", tickCount=6),
    )
    y = score_axis(alt, "acc")
    points = all_rows(alt).transform_filter(f"datum.{axis.field} > 0 && !(datum.decayed && {axis.field == 'speed':d})")
    points = points.mark_point(filled=True, size=90 if len(shown) < MANY_MARKS else 40)
    stairs = only_rows(alt, best).mark_line(interpolate="step-after" if axis.less else "step-before", strokeDash=[4, 3])
    named = told_apart(best, shown)
    # Labels stand above the front, where no model can be, and towards the middle, so that none leaves the chart.
    cheap = [row for row in named if (math.log10(row[axis.field]) - low) < 0.55 * (high - low)]
    layers = [
        points.encode(x, y, tooltip=tooltip(alt), **looks(alt, shown)),
        stairs.encode(x, y),
        *labels(alt, cheap, x, y, left=True, up=7),
        *labels(alt, [row for row in named if row not in cheap], x, y, left=False, up=7),
    ]
    title = f"acc against {axis.title}"
    less = "" if len(shown) == len(rows) else f" {len(rows) - len(shown):,} models without this figure are left out."
    return Chart(
        f"acc-{axis.field}",
        "What accuracy costs",
        title,
        "The dashed line is the front: of the models on it none is beaten in both. "
        f"From the most accurate: {', '.join(row['name'] for row in best[::-1])}.{less}",
        layered(alt, layers, title, HEIGHT),
        {"models": shown},
        label={"speed": "speed", "params": "parameters", "gmacs": "GMACs"}[axis.field],
    )


def acc_and_acc5(rows: Sequence[Datum], table: ClassTable | None) -> Chart | None:
    """acc against acc5, with the models named that the two rank most differently."""
    alt = altair()
    if len(rows) < 2:
        return None
    tau = kendall_tau(rows)
    named = told_apart([each.row for each in disagreements(rows, table)], rows, "acc5")
    x, y = score_axis(alt, "acc", x=True), score_axis(alt, "acc5")
    points = all_rows(alt).mark_point(filled=True, size=90 if len(rows) < MANY_MARKS else 40)
    middle = (max(row["acc"] for row in rows) + min(row["acc"] for row in rows)) / 2
    layers = [
        points.encode(x, y, tooltip=tooltip(alt), **looks(alt, rows)),
        *labels(alt, [row for row in named if row["acc"] < middle], x, y, left=True),
        *labels(alt, [row for row in named if row["acc"] >= middle], x, y, left=False),
    ]
    agree = "" if tau is None else f"Kendall's tau {tau:.2f}: 1 would be the same order, 0 none in common."
    return Chart(
        "acc-acc5",
        "acc and acc5",
        "acc against acc5",
        f"{agree} acc looks at the nearest reference alone, acc5 at five, so a class of few references counts for less "
        "in acc5. The models named are those that the two rank most differently.".strip(),
        layered(alt, layers, "acc against acc5", HEIGHT, agree),
        {"models": rows},
    )


def within_families(rows: Sequence[Datum]) -> Chart | None:
    """All models of each family on a line, the family with the best model first."""
    alt = altair()
    if not rows:
        return None
    y = name_axis(alt, "title", list(dict.fromkeys(row["title"] for row in rows)))
    points = (
        all_rows(alt)
        .mark_point(filled=True, size=45)
        .encode(score_axis(alt, "acc", x=True), y, tooltip=tooltip(alt), **looks(alt, rows))
    )
    middle = all_rows(alt).mark_tick(thickness=2, size=14, color="#777").encode(alt.X("median(acc):Q"), y)
    return Chart(
        "families",
        "Families",
        "acc within each family",
        "A mark is a model, the upright line the median of the family.",
        layered(alt, [points, middle], "acc within each family", (_STEP + 3) * len({row["title"] for row in rows})),
        {"models": rows},
    )


def families(groups: Sequence[Group], rows: Sequence[Datum]) -> Iterator[Chart]:
    """The models of each family by acc, in two parts where there are many."""
    of_model = {row["model"]: row for row in rows}
    for place, group in enumerate(groups):
        for number, (part, members) in enumerate(group.parts):
            shown = [of_model[member.result.model] for member in members]
            title = f"{group.title}: {part}" if part else f"{group.title} by acc"
            names = {"@family": group.slug, "@part": part, "@colour": look_of(group.slug).colour, "@title": title}
            slug = group.slug if re.fullmatch(r"[a-z0-9_-]{1,60}", group.slug) else f"number-{place}"
            yield Chart(
                f"family-{slug}{f'-{number + 1}' if part else ''}",
                "Each family",
                title,
                "Lines are 95 % intervals.",
                filled(_bars(any("acc_low" in row for row in shown)), names) | {"height": _STEP * len(shown)},
                {"models": shown},
                label=f"{group.title} ({part or len(group.rows)})",
                of_family=True,
            )


@functools.cache
def _bars(intervals: bool) -> Spec:
    """A part of a family as bars, with words that stand for which: made once, since Altair takes its time."""
    alt = altair()
    y = name_axis(alt)
    base = (
        all_rows(alt)
        .transform_filter(alt.FieldEqualPredicate(field="family", equal="@family"))
        .transform_filter(alt.FieldEqualPredicate(field="part", equal="@part"))
    )
    bars = base.mark_bar(height=11, color="@colour", opacity=0.9)
    layers = [bars.encode(score_axis(alt, "acc", zero=True, x=True), y, tooltip=tooltip(alt))]
    if intervals:
        layers.append(base.mark_rule().encode(alt.X("acc_low:Q", title="acc"), y, alt.X2("acc_high:Q")))
    return layered(alt, layers, "@title", 0)


def pretraining(rows: Sequence[Datum]) -> Chart | None:
    """Equal architectures that were trained on different data, those that differ most first."""
    alt = altair()
    groups = [group for group in equal_architectures(rows) if len(group) > 1]
    groups = sorted(groups, key=lambda group: group[-1]["acc"] - group[0]["acc"])[:_MOST_ARCHITECTURES]
    if not groups:
        return None
    shown = [row | {"network": cut(network_of(group[0]), _LONGEST)} for group in groups for row in group]
    ends = [
        row | {"network": cut(network_of(group[0]), _LONGEST), "side": side}
        for group in groups
        for row, side in ((group[0], "best"), (group[-1], "worst"))
    ]
    data = alt.Chart(alt.NamedData(name="networks"))
    y = name_axis(alt, "network")
    x = score_axis(alt, "acc", x=True, padding=90)
    layers = [
        data.mark_line(size=1.5).encode(x, y, detail="network:N"),
        data.mark_point(filled=True, size=70).encode(x, y, tooltip=tooltip(alt), **looks(alt, shown)),
        *(
            alt.Chart(alt.NamedData(name="ends"))
            .transform_filter(f"datum.side == '{side}'")
            .mark_text(align=align, dx=dx, limit=170, fontSize=10)
            .encode(x, y, text="pretraining:N")
            for side, align, dx in (("best", "left", 8), ("worst", "right", -8))
        ),
    ]
    title = "Pretraining data at equal architecture"
    return Chart(
        "pretraining",
        "Pretraining data",
        title,
        "Each line is one architecture; a mark is its best model of that pretraining data. The names are those of the "
        "best and the worst data.",
        layered(alt, layers, title, (_STEP + 3) * len(groups)),
        {"networks": shown, "ends": ends},
    )


def network_of(row: Datum) -> str:
    """The architecture, under one name where timm has it under several.

    >>> network_of({"architecture": "gluon_xception65"}), network_of({"architecture": "tf_efficientnet_b0"})
    ('xception65', 'efficientnet_b0')
    """
    name = str(row["architecture"])
    return next((name.removeprefix(alias) for alias in _ALIASES if name.startswith(alias)), name)


def equal_architectures(rows: Sequence[Datum]) -> list[list[Datum]]:
    """Of each architecture the best row of each pretraining data, best first. `rows`: best first."""
    networks: dict[str, dict[str, Datum]] = {}
    for row in rows:
        if row.get("pretraining") not in (None, "unknown"):
            networks.setdefault(network_of(row), {}).setdefault(row["pretraining"], row)
    return [list(by_data.values()) for by_data in networks.values()]


def two_models(rows: Sequence[Datum], table: ClassTable | None) -> Chart | None:
    """acc of each class by the best model and by the best other one; the page lets others be chosen."""
    alt = altair()
    pair = [row for row in rows if table is not None and row["model"] in table.models][:2]
    if table is None or len(pair) < 2:
        return None
    points = class_points(table, *(row["model"] for row in pair))
    scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format=".1f")
    dots = (
        alt.Chart(alt.NamedData(name="classes"))
        .mark_circle(color="#0077bb", opacity=0.7)
        .encode(
            alt.X("first:Q", title=f"acc of {FIRST}", scale=scale, axis=axis),
            alt.Y("second:Q", title=f"acc of {SECOND}", scale=scale, axis=axis),
            alt.Size("count:Q", title="classes", scale=alt.Scale(range=[30, 900]), legend=None),
            tooltip=[
                alt.Tooltip("first:Q", title=FIRST, format=".2f"),
                alt.Tooltip("second:Q", title=SECOND, format=".2f"),
                alt.Tooltip("count:Q", title="classes"),
                alt.Tooltip("names:N", title="such as"),
            ],
        )
    )
    diagonal = (
        alt.Chart(alt.NamedData(name="diagonal"))
        .mark_line(strokeDash=[4, 3])
        .encode(alt.X("first:Q"), alt.Y("second:Q"))
    )
    title = "acc of each class by two models"
    return Chart(
        "classes",
        "Classes",
        title,
        "A circle is the classes that both models do equally well on, the larger the more classes. Above the dashed "
        "line are classes that the second model finds better.",
        layered(alt, [diagonal, dots], title, HEIGHT),
        {"classes": points, "diagonal": [{"first": end, "second": end} for end in (0, 1)]},
        names={FIRST: pair[0]["name"], SECOND: pair[1]["name"]},
    )


def class_points(table: ClassTable, first: str, second: str, most_names: int = 3) -> list[dict[str, Any]]:
    """A point for each pair of class accuracies of two models, with how many classes it is and the names of some."""
    found: dict[tuple[float, float], list[int]] = {}
    for number, pair in enumerate(zip(table.acc(first).tolist(), table.acc(second).tolist(), strict=True)):
        found.setdefault(pair, []).append(number)
    return [
        {
            "first": a,
            "second": b,
            "count": len(of),
            "names": ", ".join(cut(table.names[n], _LONGEST) for n in of[:most_names]),
        }
        for (a, b), of in found.items()
    ]
