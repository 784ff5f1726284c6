"""The charts of a leaderboard's page, each one a Vega-Lite specification; the study's charts are files too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embedcore.report.board.columns import cut
from embedcore.report.board.findings import disagreeing
from embedcore.report.board.front import AXES
from embedcore.report.board.trade_off import trade_off
from embedcore.report.html.chart import (
    ACCENT,
    FIRST,
    GREY,
    HEIGHT,
    SECOND,
    Chart,
    Datum,
    ScoreAxis,
    both,
    category,
    emphasis,
    intervals,
    labels,
    layer,
    layered,
    names_down,
    only,
    points,
    quantity,
    scores_with_padding,
    tooltip,
    without_overlap,
)
from embedcore.results.class_table import ClassTable
from embedcore.results.headline import LABELLED, UNLABELLED, headline_scores
from embedcore.results.leaderboard import Group, Leaderboard
from embedcore.results.ranking import kendall_tau
from embedcore.results.result import Result
from embedcore.results.verdicts import unpack_classes, unpack_verdicts
from embedcore.retrieval.gallery_growth import SIZES, none_drawn

LEADERS = 30
FAMILIES_WITH_BARS = ("resnet", "efficientnet")
"""The two families that the study showed in two charts each; all families are in the chart of `within_families`."""
_LINE_HEIGHT = 17  # pixels
_LONGEST_LABEL = 44  # characters
_MOST_ARCHITECTURES = 30
_MOST_CURVES, _POINTS = 10, 30
# The same network under the name of another library, or with another padding.
_ALIASES = ("gluon_", "legacy_", "tf_")


def charts(board: Leaderboard, rows: Sequence[Datum], table: ClassTable | None) -> list[Chart]:
    """Return the charts that have data to show. `rows`: those of `embedcore.report.board.rows` for this board."""
    levels = levels_of(board.dataset)
    first, five = board.headline
    found = [
        leaders(rows, first, levels[first]),
        leaders(rows, five, levels[five]),
        *(trade_off(rows, axis, levels[first], first) for axis in AXES),
        None if board.unlabelled else acc_and_acc5(rows, levels),
        within_families(rows, first),
        gallery_growth(board, rows),
        pretraining(rows, first),
        two_models(rows, table),
        *families(board.groups, rows, first),
    ]
    return [chart for chart in found if chart is not None]


def levels_of(dataset: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    """Return for each headline score that of chance and of a perfect model, as far as they are known."""
    chance = dataset.get("chance_acc")
    first, five = headline_scores(dataset)
    return {
        first: {"chance": chance, "perfect": 1.0},
        five: {"chance": chance, "perfect": dataset.get("acc5_ceiling")},
    }


def _is_first(metric: str) -> bool:
    """Whether a headline score is the one by which models are ranked first."""
    return metric in (LABELLED.first, UNLABELLED.first)


def _leading(metric: str) -> str:
    """Return the expression for the models that lead by a headline score."""
    return "datum.tied || datum.rank == 1" if _is_first(metric) else f"datum.rank_{metric} == 1"


def leaders(rows: Sequence[Datum], metric: str, levels: Mapping[str, object]) -> Chart | None:
    """The best models by a metric, with their intervals. The page chooses them: its filters may leave others."""
    place = "rank" if _is_first(metric) else f"rank_{metric}"
    shown = sorted(rows, key=lambda row: row[place])[:LEADERS]
    if not shown:
        return None
    axis = ScoreAxis.over(shown, metric, levels, grows=True)
    y = names_down(order=[row["name"] for row in shown])
    leading = _leading(metric)
    layers = [
        *axis.line_layers(x=True),
        *intervals(shown, axis.channel(f"{metric}_low"), f"{metric}_high", {"y": y}, important=leading),
        *points(axis.channel(), y, shown, important=leading),
    ]
    count = "models" if len(shown) == len(rows) else f"best {len(shown)} of {len(rows):,} models"
    tied = _is_first(metric) and any(row.get("tied") for row in shown)
    blue = f"Blue: {'tied for first' if tied else 'first'}."
    title = f"The {count} by {metric}"
    return Chart(
        f"leaders-{metric}",
        "Leaders",
        title,
        f"Lines are 95 % intervals from resampling the {'images' if metric in UNLABELLED else 'classes'}. "
        "Models whose lines overlap may be equally good. "
        f"{blue} {axis.note}".rstrip(),
        layered(layers, title, _LINE_HEIGHT * len(shown)),
        {"models": shown},
        label=f"by {metric}",
        has_file=True,
    )


def acc_and_acc5(rows: Sequence[Datum], levels: Mapping[str, Mapping[str, object]]) -> Chart | None:
    """acc against acc5, with the models named whose ranks differ most."""
    if len(rows) < 2:
        return None
    tau = kendall_tau([row["acc"] for row in rows], [row["acc5"] for row in rows])
    named = without_overlap(disagreeing(rows), rows, "acc5", always=[row for row in rows if row.get("taken")])
    across, up = (ScoreAxis.over(rows, metric, levels[metric]) for metric in ("acc", "acc5"))
    x, y = across.channel(), up.channel()
    middle = (max(row["acc"] for row in rows) + min(row["acc"] for row in rows)) / 2
    layers = [
        *across.line_layers(x=True),
        *up.line_layers(),
        *intervals(rows, across.channel("acc_low"), "acc_high", {"y": y}),
        *intervals(rows, up.channel("acc5_low"), "acc5_high", {"x": x}),
        *points(x, y, rows),
        *labels(x, y, "acc", middle, where=only(named)),
    ]
    agree = "" if tau is None else f"Kendall's tau is {tau:.2f} (1: same order, 0: unrelated orders)."
    return Chart(
        "acc-acc5",
        "acc and acc5",
        "acc against acc5",
        f"{agree} acc uses the nearest reference, acc5 the nearest five, so classes with few references lower acc5. "
        f"Labels mark the recommended model and those whose ranks differ most. {across.note} {up.note}".strip(),
        layered(layers, "acc against acc5", HEIGHT, agree),
        {"models": rows},
    )


def within_families(rows: Sequence[Datum], metric: str = "acc") -> Chart | None:
    """All models of each family on one line, the family of the best model first."""
    if not rows:
        return None
    titles = list(dict.fromkeys(row["title"] for row in rows))
    y = names_down("title", titles)
    middle = {"x": {"field": metric, "aggregate": "median", "type": "quantitative", "title": metric}, "y": y}
    layers = [
        *points(scores_with_padding(metric), y, rows, important=_leading(metric)),
        layer("tick", middle, thickness=2, size=14, color="#777"),
    ]
    return Chart(
        "families",
        "Families",
        f"{metric} within each family",
        "Each mark is a model, the vertical line the median of the family. Blue: the best and those tied with it.",
        layered(layers, f"{metric} within each family", (_LINE_HEIGHT + 3) * len(titles)),
        {"models": rows},
    )


def gallery_growth(board: Leaderboard, rows: Sequence[Datum]) -> Chart | None:
    """acc of the best models as distractors enlarge the gallery."""
    references = board.dataset.get("references")
    results = {row.result.model: row.result for row in board.by_acc if row.result.distractors}
    shown = [row for row in rows if row["model"] in results][:_MOST_CURVES]
    if not shown or not isinstance(references, int):
        return None
    curves = [[*_curve(row, results[row["model"]], references)] for row in shown]
    ends = [curve[-1] for curve in curves if curve]
    if not ends:
        return None
    largest = max(end["gallery"] for end in ends)
    ticks = [size for times in (1, *SIZES.values()) if (size := references * times) <= largest]
    ticks = ticks if len(ticks) > 1 else [references, largest]
    axis = {"values": ticks, "labelExpr": f"format(datum.value / {references}, '.3~r') + '×'"}
    heading = f"gallery, in multiples of the {references:,} references"
    x = quantity("gallery", heading, scale={"type": "log", "nice": False}, axis=axis)
    place = {"x": x, "y": scores_with_padding("acc")}
    best = f"datum.id == {shown[0]['id']}"
    colours = emphasis(best)
    detail = {"detail": {"field": "id", "type": "nominal"}}
    about = [category("name", "model"), quantity("acc", format=".3f"), quantity("gallery", "references", format=",d")]
    named = both("datum.last", only(without_overlap(ends, ends)))
    layers = [
        layer("line", {**place, **detail, **colours}, data="growth", strokeWidth=1.5),
        layer("point", {**place, **colours, "tooltip": about}, data="growth", filled=True, size=20),
        layer("text", {**place, "text": category("name")}, data="growth", where=named, align="right", dx=-4, dy=-8),
    ]
    title = "acc as the gallery grows"
    return Chart(
        "gallery-growth",
        "Gallery size",
        title,
        f"acc expected if random distractors, references of no class, are added to the {references:,} labelled "
        "references. Blue: the best model without them.",
        layered(layers, title, HEIGHT),
        {"growth": [datum for curve in curves for datum in curve]},
    )


def _curve(row: Datum, result: Result, references: int) -> Iterator[Datum]:
    """Yield the points of a model's curve, evenly spread on a log axis; none if its counts are damaged."""
    found = result.distractors
    try:
        right = unpack_verdicts(result.verdicts or "").first
        beaten = unpack_classes(found.beaten_by if found else "")[right]
    except (ValueError, IndexError):
        return
    total = found.count if found else 0
    known: Datum = {key: row[key] for key in ("id", "name", "family", "own") if key in row}
    for size in np.unique(np.geomspace(references, references + total, _POINTS).round().astype(np.int64)).tolist():
        drawn = min(size - references, total)
        kept = none_drawn(beaten, total, drawn).mean() if len(beaten) else 0.0
        yield {**known, "gallery": size, "acc": round(row["acc"] * float(kept), 5), "last": drawn == total}


def families(groups: Sequence[Group], rows: Sequence[Datum], metric: str = "acc") -> Iterator[Chart]:
    """The models of `FAMILIES_WITH_BARS` by a score: "best 30" and "the rest" of a large family, as in the study."""
    of_model = {row["model"]: row for row in rows}
    for group in groups:
        if group.slug not in FAMILIES_WITH_BARS:
            continue
        for number, (part, members) in enumerate(group.parts, start=1):
            shown = [of_model[member.result.model] for member in members]
            title = f"{group.title}: {part}" if part else f"{group.title} by {metric}"
            x = quantity(metric, scale={"zero": True}, axis={"format": ".3~f"})
            y = names_down(order=[row["name"] for row in shown])
            bars = {"x": x, "y": y, "tooltip": tooltip(shown)}
            layers = [layer("bar", bars, where=only(shown), height=11, color=GREY, opacity=0.8)]
            if any(f"{metric}_low" in row for row in shown):
                lines = {"x": x | {"field": f"{metric}_low"}, "x2": {"field": f"{metric}_high"}, "y": y}
                layers.append(layer("rule", lines, where=both(only(shown), f"isValid(datum.{metric}_low)")))
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


def pretraining(rows: Sequence[Datum], metric: str = "acc") -> Chart | None:
    """Architectures that were pretrained on several datasets, those with the widest spread first."""
    groups = [group for group in equal_architectures(rows) if len(group) > 1]
    groups = sorted(groups, key=lambda group: group[-1][metric] - group[0][metric])[:_MOST_ARCHITECTURES]
    if not groups:
        return None
    place = {"x": scores_with_padding(metric, 90), "y": names_down("network")}
    names = {**place, "text": category("pretraining")}
    sides = (("best", "left", 8), ("worst", "right", -8))
    layers = [
        layer("line", {**place, "detail": {"field": "network", "type": "nominal"}}, data="networks", strokeWidth=1.5),
        layer("point", {**place, "tooltip": tooltip(rows), **emphasis()}, data="networks", filled=True, size=70),
        *(
            layer("text", names, data="networks", where=f"datum.{end}", align=align, dx=dx, limit=170, fontSize=10)
            for end, align, dx in sides
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
        {"networks": [row for group in groups for row in _of_network(group)]},
    )


def _of_network(group: Sequence[Datum]) -> Iterator[Datum]:
    """Yield the rows of an architecture with the fields that the chart of pretraining data shows."""
    for place, row in enumerate(group):
        ends = {"best": place == 0, "worst": place == len(group) - 1}
        known = {key: row[key] for key in _OF_NETWORK if key in row}
        yield known | ends | {"network": cut(network_of(group[0]), _LONGEST_LABEL)}


_OF_NETWORK = ("id", "family", "own", *UNLABELLED, *(channel["field"] for channel in tooltip(())))


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
    scale, axis = {"domain": [0, 1]}, {"format": ".1f"}
    place = {
        "x": quantity("first", f"acc of {FIRST}", scale=scale, axis=axis),
        "y": quantity("second", f"acc of {SECOND}", scale=scale, axis=axis),
    }
    circles = {
        **place,
        "size": quantity("count", "classes", scale={"range": [30, 900]}, legend=None),
        "tooltip": [
            quantity("first", FIRST, format=".2f"),
            quantity("second", SECOND, format=".2f"),
            quantity("count", "classes"),
            category("names", "such as"),
        ],
    }
    title = "acc of each class by two models"
    return Chart(
        "classes",
        "Classes",
        title,
        "Each circle is a pair of accuracies, its area the number of classes that have it. Above the dashed line the "
        "second model is better.",
        layered(
            [
                layer("line", place, data="diagonal", strokeDash=[4, 3]),
                layer("circle", circles, data="classes", color=ACCENT, opacity=0.7),
            ],
            title,
            HEIGHT,
        ),
        {
            "classes": class_points(table, pair[0]["model"], pair[1]["model"]),
            "diagonal": [{"first": end, "second": end} for end in (0, 1)],
        },
        names={FIRST: pair[0]["name"], SECOND: pair[1]["name"]},
    )


def class_points(table: ClassTable, first: str, second: str) -> list[dict[str, Any]]:
    """Return a point for each distinct pair of class accuracies: the number of its classes, and three names."""
    found: dict[tuple[float, float], list[int]] = {}
    for number, pair in enumerate(zip(table.acc(first).tolist(), table.acc(second).tolist(), strict=True)):
        found.setdefault(pair, []).append(number)
    return [
        {
            "first": a,
            "second": b,
            "count": len(of),
            "names": ", ".join(cut(table.names[n], _LONGEST_LABEL) for n in of[:3]),
        }
        for (a, b), of in found.items()
    ]
