"""The charts of a leaderboard's page, each one Altair specification; the study's charts are files too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from embedcore.report.board.columns import cut
from embedcore.report.board.findings import disagreements
from embedcore.report.html.chart import (
    FIRST,
    HEIGHT,
    SECOND,
    Chart,
    Datum,
    all_rows,
    alt,
    family_encodings,
    labels,
    layered,
    name_axis,
    only_rows,
    points,
    score_axis,
    tooltip,
    without_overlap,
)
from embedcore.report.html.theme import theme_of
from embedcore.results.agreement import kendall_tau
from embedcore.results.class_table import ClassTable
from embedcore.results.leaderboard import Group, Leaderboard

LEADERS = 30
FAMILIES_WITH_BARS = ("resnet", "efficientnet")
"""The two families that the study showed in two charts each; all families are in the chart of `within_families`."""
_LINE_HEIGHT = 17  # pixels
_LONGEST_LABEL = 44  # characters
_MOST_ARCHITECTURES = 30
# The same network under the name of another library, or with another padding.
_ALIASES = ("gluon_", "legacy_", "tf_")


def charts(board: Leaderboard, rows: Sequence[Datum], table: ClassTable | None) -> list[Chart]:
    """Return the charts that have data to show. `rows`: those of `embedcore.report.board.rows` for this board."""
    # Without debug mode Altair skips the validation of every part against its schema, which takes most of the time.
    with alt.utils.schemapi.debug_mode(False):
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
    """The best models by a metric, with their intervals."""
    shown = sorted(rows, key=lambda row: row["rank" if metric == "acc" else f"rank_{metric}"])[:LEADERS]
    if not shown:
        return None
    base = only_rows(shown)
    y = name_axis(order=[row["name"] for row in shown])
    marks = points(base, shown).encode(score_axis(metric, x=True), y, tooltip=tooltip())
    layers = [marks.encode(**family_encodings(shown))]
    if any(f"{metric}_low" in row for row in shown):
        rules = base.mark_rule(size=1.5).encode(alt.X(f"{metric}_low:Q", title=metric), y, alt.X2(f"{metric}_high:Q"))
        layers.insert(0, rules)
    count = "models" if len(shown) == len(rows) else f"best {len(shown)} of {len(rows):,} models"
    return Chart(
        f"leaders-{metric}",
        "Leaders",
        f"The {count} by {metric}",
        "Lines are 95 % intervals from resampling the classes. Models whose lines overlap may be equally good.",
        layered(layers, f"The {count} by {metric}", _LINE_HEIGHT * len(shown)),
        {"models": shown},
        label=f"by {metric}",
        has_file=True,
    )


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


def pareto_front(rows: Sequence[Datum], axis: Axis) -> list[Datum]:
    """Return the rows that no other row beats in both acc and the quantity of the axis, the best by acc last.

    Rows without a value are skipped; of equal rows the first one counts.
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
    """Return the rows with a value that a logarithmic axis can show; a speed in a decayed batch is not comparable."""
    return [row for row in rows if (row.get(axis.field) or 0) > 0 and not (axis.name == "speed" and row.get("decayed"))]


def trade_off(rows: Sequence[Datum], axis: Axis) -> Chart | None:
    """acc against speed, parameters or GMACs, with the models on the Pareto front named."""
    shown = _with(rows, axis)
    if not shown:
        return None
    best = pareto_front(shown, axis)
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
    y = score_axis("acc")
    valid = all_rows().transform_filter(f"datum.{axis.field} > 0 && !(datum.decayed && {axis.name == 'speed':d})")
    stairs = only_rows(best).mark_line(interpolate="step-after" if axis.less else "step-before", strokeDash=[4, 3])
    named = without_overlap(best, shown)
    layers = [
        points(valid, shown).encode(x, y, tooltip=tooltip(), **family_encodings(shown)),
        stairs.encode(x, y),
        # above the front, where no model can be
        *labels(named, x, y, axis.field, 10 ** (low + 0.55 * (high - low)), up=7),
    ]
    title = f"acc against {axis.title}"
    left_out = len(rows) - len(shown)
    less = f" Models without this figure: {left_out:,}, not shown." if left_out else ""
    return Chart(
        f"acc-{axis.name.lower()}",
        "Cost of accuracy",
        title,
        "The dashed line is the Pareto front: no model beats one of these in both. "
        f"From the most accurate: {', '.join(row['name'] for row in best[::-1])}.{less}",
        layered(layers, title, HEIGHT),
        {"models": shown},
        label=axis.name,
    )


def acc_and_acc5(rows: Sequence[Datum], table: ClassTable | None) -> Chart | None:
    """acc against acc5, with the models named whose ranks differ most."""
    if len(rows) < 2:
        return None
    tau = kendall_tau(rows)
    named = without_overlap([each.row for each in disagreements(rows, table)], rows, "acc5")
    x, y = score_axis("acc", x=True), score_axis("acc5")
    middle = (max(row["acc"] for row in rows) + min(row["acc"] for row in rows)) / 2
    layers = [
        points(all_rows(), rows).encode(x, y, tooltip=tooltip(), **family_encodings(rows)),
        *labels(named, x, y, "acc", middle),
    ]
    agree = "" if tau is None else f"Kendall's tau is {tau:.2f} (1: same order, 0: unrelated orders)."
    return Chart(
        "acc-acc5",
        "acc and acc5",
        "acc against acc5",
        f"{agree} acc uses the nearest reference, acc5 the nearest five, so classes with few references lower acc5. "
        "Labels mark the models whose ranks differ most.".strip(),
        layered(layers, "acc against acc5", HEIGHT, agree),
        {"models": rows},
    )


def within_families(rows: Sequence[Datum]) -> Chart | None:
    """All models of each family on one line, the family of the best model first."""
    if not rows:
        return None
    titles = list(dict.fromkeys(row["title"] for row in rows))
    y = name_axis("title", titles)
    marks = all_rows().mark_point(filled=True, size=45)
    marks = marks.encode(score_axis("acc", x=True), y, tooltip=tooltip(), **family_encodings(rows))
    middle = all_rows().mark_tick(thickness=2, size=14, color="#777").encode(alt.X("median(acc):Q"), y)
    return Chart(
        "families",
        "Families",
        "acc within each family",
        "Each mark is a model, the vertical line the median of the family.",
        layered([marks, middle], "acc within each family", (_LINE_HEIGHT + 3) * len(titles)),
        {"models": rows},
    )


def families(groups: Sequence[Group], rows: Sequence[Datum]) -> Iterator[Chart]:
    """The models of `FAMILIES_WITH_BARS` by acc: "best 30" and "the rest" of a large family, as in the study."""
    of_model = {row["model"]: row for row in rows}
    for group in groups:
        if group.slug not in FAMILIES_WITH_BARS:
            continue
        for number, (part, members) in enumerate(group.parts, start=1):
            shown = [of_model[member.result.model] for member in members]
            title = f"{group.title}: {part}" if part else f"{group.title} by acc"
            base, y = only_rows(shown), name_axis(order=[row["name"] for row in shown])
            bars = base.mark_bar(height=11, color=theme_of(group.slug).colour, opacity=0.9)
            layers = [bars.encode(score_axis("acc", zero=True, x=True), y, tooltip=tooltip())]
            if any("acc_low" in row for row in shown):
                layers.append(base.mark_rule().encode(alt.X("acc_low:Q", title="acc"), y, alt.X2("acc_high:Q")))
            yield Chart(
                f"family-{group.slug}{f'-{number}' if part else ''}",
                "ResNet and EfficientNet",
                title,
                "Lines are 95 % intervals.",
                layered(layers, title, _LINE_HEIGHT * len(shown)),
                {"models": shown},
                label=f"{group.title} ({part or len(group.rows)})",
                has_file=True,
            )


def pretraining(rows: Sequence[Datum]) -> Chart | None:
    """Architectures that were pretrained on several datasets, those with the widest spread first."""
    groups = [group for group in equal_architectures(rows) if len(group) > 1]
    groups = sorted(groups, key=lambda group: group[-1]["acc"] - group[0]["acc"])[:_MOST_ARCHITECTURES]
    if not groups:
        return None
    shown = [row | {"network": cut(network_of(group[0]), _LONGEST_LABEL)} for group in groups for row in group]
    ends = [
        row | {"network": cut(network_of(group[0]), _LONGEST_LABEL), "side": side}
        for group in groups
        for row, side in ((group[0], "best"), (group[-1], "worst"))
    ]
    data = alt.Chart(alt.NamedData(name="networks"))
    y = name_axis("network")
    x = score_axis("acc", x=True, padding=90)
    layers = [
        data.mark_line(size=1.5).encode(x, y, detail="network:N"),
        data.mark_point(filled=True, size=70).encode(x, y, tooltip=tooltip(), **family_encodings(shown)),
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
        "Each line is one architecture, each mark its best model with that pretraining data. The best and the worst "
        "data are named.",
        layered(layers, title, (_LINE_HEIGHT + 3) * len(groups)),
        {"networks": shown, "ends": ends},
    )


def network_of(row: Datum) -> str:
    """Return the architecture under one name where timm has several.

    >>> network_of({"architecture": "gluon_xception65"}), network_of({"architecture": "tf_efficientnet_b0"})
    ('xception65', 'efficientnet_b0')
    """
    name = str(row["architecture"])
    return next((name.removeprefix(alias) for alias in _ALIASES if name.startswith(alias)), name)


def equal_architectures(rows: Sequence[Datum]) -> list[list[Datum]]:
    """Return for each architecture its best row with each pretraining data, best first. `rows`: best first."""
    networks: dict[str, dict[str, Datum]] = {}
    for row in rows:
        if row.get("pretraining") not in (None, "unknown"):
            networks.setdefault(network_of(row), {}).setdefault(row["pretraining"], row)
    return [list(by_data.values()) for by_data in networks.values()]


def two_models(rows: Sequence[Datum], table: ClassTable | None) -> Chart | None:
    """acc of each class with the two best models; in the page any two can be chosen."""
    pair = [row for row in rows if table is not None and row["model"] in table.models][:2]
    if table is None or len(pair) < 2:
        return None
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
        "Each circle is a pair of accuracies, its area the number of classes that have it. Above the dashed line the "
        "second model is better.",
        layered([diagonal, dots], title, HEIGHT),
        {
            "classes": class_points(table, pair[0]["model"], pair[1]["model"]),
            "diagonal": [{"first": end, "second": end} for end in (0, 1)],
        },
        names={FIRST: pair[0]["name"], SECOND: pair[1]["name"]},
    )


def class_points(table: ClassTable, first: str, second: str, most_names: int = 3) -> list[dict[str, Any]]:
    """Return a point for each distinct pair of class accuracies: the number of its classes, and some of their names."""
    found: dict[tuple[float, float], list[int]] = {}
    for number, pair in enumerate(zip(table.acc(first).tolist(), table.acc(second).tolist(), strict=True)):
        found.setdefault(pair, []).append(number)
    return [
        {
            "first": a,
            "second": b,
            "count": len(of),
            "names": ", ".join(cut(table.names[n], _LONGEST_LABEL) for n in of[:most_names]),
        }
        for (a, b), of in found.items()
    ]
