"""A comparison and its verdict as a self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from embedcore.compare.comparison import Comparison
from embedcore.compare.limits import Limits
from embedcore.compare.verdict import LEVELS, Finding, Verdict
from embedcore.report.board.columns import NOTHING, cut
from embedcore.report.gate import comparison_text as words
from embedcore.report.html.chart import (
    HEIGHT,
    WORSE,
    Channel,
    Chart,
    Datum,
    Layer,
    category,
    intervals,
    labels,
    layer,
    layered,
    points,
    quantity,
    without_overlap,
)
from embedcore.report.html.page import families_of, lists_page
from embedcore.results.run import Run
from embedcore.zoo.families import family_of_slug

_MOST_NAMES = 30  # of models in one line
_LONGEST_NAME = 80  # characters in a chart
_LEAST_DRIFT = 1e-9
"""Smaller drifts are drawn here: a logarithmic axis has no zero."""


def comparison_page(comparison: Comparison, verdict: Verdict, limits: Limits) -> str:
    """Return the page. `limits`: those of the verdict; the charts show the overall ones."""
    base, new = comparison.base, comparison.new
    rows = chart_rows(comparison, verdict)
    drawn = charts(rows, limits.overall)
    counts = [(word.lower(), results) for word, results in words.unpaired(comparison) if results]
    heading = words.title(comparison, verdict)
    word, _, rest = words.summary(comparison, verdict).partition(": ")
    facts = [
        ("Runs", f"{base.name} → {new.name}"),
        ("Models in both runs", f"{len(comparison.pairing.pairs):,}"),
        ("Compared", f"{comparison.compared:,}"),
        *((word.capitalize(), f"{len(results):,}") for word, results in counts),
    ]
    return lists_page(
        "comparison.html.j2",
        title=f"{heading}: embedcore comparison",
        rows=rows,
        choices=families_of([*rows, *_listed(verdict, rows)]),
        drawn=drawn,
        heading=heading,
        passed=verdict.passed,
        word=word,
        summary=rest,
        facts=facts,
        unpaired=[f"{w.capitalize()}: {words.names((r.model for r in of), _MOST_NAMES)}" for w, of in counts],
        not_compared=list(words.not_compared(comparison, verdict, _MOST_NAMES)),
        levels=[
            (level, words.heading_of(level, found), list(_models(found)))
            for level in LEVELS
            if (found := verdict.of(level))
        ],
        groups="Families",
        families=[(slug, family_of_slug(slug).title, cells) for slug, *cells in words.family_rows(comparison)],
        ranks=words.rank_lines(comparison),
        sides=list(sides(base, new)),
        legend=_legend(comparison, verdict),
    )


def _listed(verdict: Verdict, rows: Sequence[Datum]) -> Iterator[Datum]:
    """Yield the listed models that no chart shows."""
    shown = {row["model"] for row in rows}
    for model, family in dict.fromkeys((finding.model, finding.family) for finding in verdict.findings):
        if model not in shown:
            yield {"family": family, "title": family_of_slug(family).title}


def _models(found: Sequence[Finding]) -> Iterator[dict[str, Any]]:
    """Yield the findings of one level by model: what, base, new, change and limit of each, and the reasons once."""
    for model, same in groupby(found, key=lambda finding: finding.model):
        findings = list(same)
        because = [f"accepted: {finding.because}" for finding in findings if finding.because]
        yield {
            "model": model,
            "family": findings[0].family,
            "reasons": list(dict.fromkeys([*because, *(cause for finding in findings for cause in finding.causes)])),
            "rows": [
                (*words.cells_of(f.change), words.limit_text(f) if f.limit and math.isfinite(f.limit) else "")
                for f in findings
            ],
        }


def sides(base: Run, new: Run) -> Iterator[tuple[str, str, str]]:
    """Yield (what, base, new) for both runs: files, versions, machine, images, and the settings that differ."""

    def value(found: object) -> str:
        return NOTHING if found is None or found == "" else str(found)

    yield "file", str(base.path), str(new.path)
    for what in ("datetime", "commit"):
        yield what, value(getattr(base, what)), value(getattr(new, what))
    for old, now, only_different in (
        (base.versions, new.versions, False),
        ({"images": base.dataset.get("name")}, {"images": new.dataset.get("name")}, False),
        (base.settings, new.settings, True),
    ):
        for key in dict.fromkeys([*old, *now]):
            if key != "roster_missing" and not (only_different and old.get(key) == now.get(key)):
                yield key, value(old.get(key)), value(now.get(key))


def _legend(comparison: Comparison, verdict: Verdict) -> list[str]:
    return [
        "A regression is worse than its limit by more than chance explains and has not been accepted. One regression "
        "fails the comparison.",
        "acc is the share of queries whose nearest neighbour has their class, acc5 the share of their class among the "
        "five nearest; pt means percentage points. Drift is the distance between embeddings of the same images, "
        "relative to their length.",
        "Intervals are 95 % confidence intervals. Scores are tested per query, speed between processes. A speed is "
        "clear if its interval excludes the limit, a regression if the fall surely exceeds it, else undecided.",
        f"{words.limits_line(verdict).capitalize()}.",
        *words.speed_lines(comparison),
    ]


def chart_rows(comparison: Comparison, verdict: Verdict) -> list[Datum]:
    """Return the charts' row for each model with a comparison. Changes above 0 are better, in percentage
    points (acc) or percent (speed)."""
    level: dict[tuple[str, str], str] = {(f.model, f.change.what): f.level for f in verdict.findings}
    names = {"acc": "acc", "images_per_s": "speed"}
    rows: list[Datum] = []
    for model in comparison.models:
        row: Datum = {}
        for change in model.changes:
            if change.what in names:
                name = names[change.what]
                row |= {name: change.base, f"{name}_new": change.new, f"{name}_change": -100 * change.change}
                if change.low is not None and change.high is not None:
                    row |= {f"{name}_low": -100 * change.high, f"{name}_high": -100 * change.low}
                row[f"{name}_level"] = level.get((model.model, change.what), "equal")
            elif change.what == "drift" and math.isfinite(change.change):
                row |= {"drift": change.change, "drawn_drift": max(change.change, _LEAST_DRIFT)}
                row["drift_level"] = level.get((model.model, "drift"), "equal")
        if row:
            title = family_of_slug(model.family).title
            known = {"model": model.model, "name": cut(model.model, _LONGEST_NAME), "family": model.family}
            rows.append({"id": len(rows), **known, "title": title, **row})
    return rows


def charts(rows: Sequence[Datum], limits: Mapping[str, float]) -> list[Chart]:
    """Return the charts that have data to show. `limits`: as `Limits.overall`."""
    found = [_speed(rows, limits), _accuracy(rows, limits), _drift(rows, limits)]
    return [chart for chart in found if chart is not None]


def _speed(rows: Sequence[Datum], limits: Mapping[str, float]) -> Chart | None:
    shown = [row for row in rows if row.get("speed")]
    x = quantity("speed", "images/s of base", scale={"type": "log", "nice": False, "padding": 20})
    limit = limits.get("images_per_s", math.inf)
    layers = [*_zero_and_limit(limit), *_models_of_chart(shown, "speed", x)]
    return _chart("speed", "Speed", "Change of speed", "Above 0 a model became faster.", shown, layers, limit)


def _accuracy(rows: Sequence[Datum], limits: Mapping[str, float]) -> Chart | None:
    shown = [row for row in rows if "acc_change" in row]
    x = quantity("acc", "acc of base", scale={"zero": False, "nice": False, "padding": 20})
    limit = limits.get("acc", math.inf)
    layers = [*_zero_and_limit(limit), *_models_of_chart(shown, "acc", x)]
    return _chart("accuracy", "Accuracy", "Change of acc", "Above 0 a model became better.", shown, layers, limit)


def _drift(rows: Sequence[Datum], limits: Mapping[str, float]) -> Chart | None:
    shown = [row for row in rows if "drift" in row and "acc_change" in row]
    scale, axis = {"type": "log", "nice": False, "padding": 20}, {"format": ".0e", "tickCount": 6}
    x = quantity("drawn_drift", "drift of the embeddings", scale=scale, axis=axis)
    limit = limits.get("drift", math.inf)
    layers = [_rule("y", 0.0, dashed=False), *_models_of_chart(shown, "acc", x, by="drift")]
    if 0 < limit < math.inf:
        layers.append(_rule("x", limit))
    note = f"Drift increases to the right; values up to {_LEAST_DRIFT:g} are drawn there."
    if len(shown) < len(rows):
        note += f" Models without this figure, or with another width, are not shown: {len(rows) - len(shown):,}."
    return _chart("drift", "Embeddings", "Drift of the embeddings and change of acc", note, shown, layers, limit)


def _chart(
    name: str, section: str, title: str, note: str, shown: Sequence[Datum], layers: Sequence[Layer], limit: float
) -> Chart | None:
    if not shown:
        return None
    if any("acc_low" in row or "speed_low" in row for row in shown):
        note += " Vertical lines are 95 % intervals."
    if 0 < limit < math.inf:
        note += " The dashed line is the limit."
    note += " Regressions are red, and named where there is room."
    return Chart(name, section, title, note, layered(layers, title, HEIGHT), {"models": shown})


def _zero_and_limit(limit: float) -> list[Layer]:
    return [_rule("y", 0.0, dashed=False), *([_rule("y", -100 * limit)] if 0 < limit < math.inf else [])]


_AXIS_TITLES = {"speed": "images/s, change in %", "acc": "acc, change in percentage points"}
_FORMATS = {"acc": ".3f", "speed": ".4~s"}


def _models_of_chart(shown: Sequence[Datum], name: str, x: Channel, by: str = "") -> list[Layer]:
    """Return layers: the changes of `name` over `x` with their intervals, and the names of regressions of `by`
    (default: `name`)."""
    if not shown:
        return []
    y = quantity(f"{name}_change", _AXIS_TITLES[name], scale={"padding": 16, "nice": False})
    low = quantity(f"{name}_low", _AXIS_TITLES[name])
    field, level = x["field"], f"{by or name}_level"
    hover = [
        category("model"),
        category("title", "family"),
        *(quantity(key, format=_FORMATS[name]) for key in (name, f"{name}_new")),
        quantity(f"{name}_change", "change", format="+.2f"),
        quantity("drift", format=".2g"),
        category(level, "verdict"),
    ]
    valid = f"isValid(datum.{name}_change) && isValid(datum['{field}'])"
    worse = f"datum.{level} == 'regression'"
    regressions = without_overlap([row for row in shown if row[level] == "regression"], shown, f"{name}_change")
    middle = sorted(row[field] for row in shown)[len(shown) // 2]
    return [
        *intervals(shown, low, f"{name}_high", {"x": x}, important=worse, colour=WORSE, where=valid),
        *points(x, y, shown, important=worse, colour=WORSE, where=valid, tooltip=hover),
        *labels(regressions, x, y, field, middle, up=9),
    ]


def _rule(axis: str, at: float, *, dashed: bool = True) -> Layer:
    channels = {axis: quantity("at")}
    channels[axis].pop("title")
    return layer("rule", channels, data=[{"at": at}], strokeDash=[4, 3] if dashed else [1, 0])
