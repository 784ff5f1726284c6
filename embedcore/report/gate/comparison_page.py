"""A comparison and its verdict as a self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from embedcore.compare.comparison import Comparison
from embedcore.compare.judged import names_of
from embedcore.compare.limits import Limits
from embedcore.compare.verdict import LEVELS, Finding, Verdict
from embedcore.report.board import captions
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
    only,
    points,
    quantity,
    without_overlap,
)
from embedcore.report.html.page import ListBody, families_of, lists_page
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
        unpaired=[f"{w.capitalize()}: {names_of([r.model for r in of], _MOST_NAMES)}" for w, of in counts],
        not_compared=list(words.not_compared(comparison, verdict, _MOST_NAMES)),
        levels=[
            (level, words.heading_of(level, found), list(_models(found)))
            for level in LEVELS
            if (found := verdict.of(level))
        ],
        groups="Families",
        families=[
            ListBody(slug, family_of_slug(slug).title, [cells]) for slug, *cells in words.family_rows(comparison)
        ],
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


def _models(found: Sequence[Finding]) -> Iterator[ListBody]:
    """Yield the findings of one level by model: what, base, new, change and limit of each, and the reasons once."""
    for model, same in groupby(found, key=lambda finding: finding.model):
        findings = list(same)
        because = [f"accepted: {finding.because}" for finding in findings if finding.because]
        reasons = dict.fromkeys([*because, *(cause for finding in findings for cause in finding.causes)])
        limits = (words.limit_text(f) if f.limit and math.isfinite(f.limit) else "" for f in findings)
        rows = [(*words.cells_of(f.change), limit) for f, limit in zip(findings, limits, strict=True)]
        yield ListBody(findings[0].family, model, rows, list(reasons))


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
        *map(captions.sentence, words.speed_lines(comparison)),
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


_CHANGES = {"speed": ("images/s, change in %", ".4~s"), "acc": ("acc, change in percentage points", ".3f")}
"""Title of the axis of each change, and format of its values."""


def charts(rows: Sequence[Datum], limits: Mapping[str, float]) -> list[Chart]:
    """Return the charts that have data to show. `limits`: as `Limits.overall`."""
    scale = {"nice": False, "padding": 20}
    speed = quantity("speed", "images/s of base", scale={"type": "log", **scale})
    acc = quantity("acc", "acc of base", scale={"zero": False, **scale})
    ticks = {"format": ".0e", "tickCount": 6}
    drift = quantity("drawn_drift", "drift of the embeddings", scale={"type": "log", **scale}, axis=ticks)
    without = sum("drift" not in row or "acc_change" not in row for row in rows)
    note = f"Drift increases to the right; values up to {_LEAST_DRIFT:g} are drawn there."
    if without:
        note += f" Models without this figure, or with another width, are not shown: {without:,}."
    of_speed = "Speed", "Change of speed", "Above 0 a model became faster."
    of_acc = "Accuracy", "Change of acc", "Above 0 a model became better."
    of_drift = "Embeddings", "Drift of the embeddings and change of acc", note
    found = (
        _chart(rows, "speed", "speed", of_speed, speed, "speed", limits.get("images_per_s", math.inf)),
        _chart(rows, "acc", "accuracy", of_acc, acc, "acc", limits.get("acc", math.inf)),
        _chart(rows, "acc", "drift", of_drift, drift, "drift", limits.get("drift", math.inf)),
    )
    return [chart for chart in found if chart is not None]


def _chart(
    rows: Sequence[Datum], change: str, name: str, texts: tuple[str, str, str], x: Channel, judged: str, limit: float
) -> Chart | None:
    """Return a chart of a change over `x`, with the names of regressions. `texts`: section, title and beginning of the
    note; `judged`: ``speed``, ``acc`` or ``drift``, to which the limit applies."""
    field, level = x["field"], f"{judged}_level"
    log = x["scale"].get("type") == "log"
    shown = [row for row in rows if f"{change}_change" in row and field in row and (row[field] > 0 or not log)]
    if not shown:
        return None
    section, title, note = texts
    axis, form = _CHANGES[change]
    y = quantity(f"{change}_change", axis, scale={"padding": 16, "nice": False})
    hover = [
        category("model"),
        category("title", "family"),
        *(quantity(key, format=form) for key in (change, f"{change}_new")),
        quantity(f"{change}_change", "change", format="+.2f"),
        quantity("drift", format=".2g"),
        category(level, "verdict"),
    ]
    valid = f"isValid(datum.{change}_change) && isValid(datum['{field}'])"
    worse = f"datum.{level} == 'regression'"
    regressions = without_overlap([row for row in shown if row[level] == "regression"], shown, f"{change}_change")
    middle = sorted(row[field] for row in shown)[len(shown) // 2]
    low = quantity(f"{change}_low", axis)
    layers = [
        _rule("y", 0.0, dashed=False),
        *intervals(shown, low, f"{change}_high", {"x": x}, important=worse, colour=WORSE, where=valid),
        *points(x, y, shown, important=worse, colour=WORSE, where=valid, tooltip=hover),
        *(labels(x, y, field, middle, where=only(regressions), dy=-9) if regressions else []),
    ]
    if any(f"{change}_low" in row for row in shown):
        note += " Vertical lines are 95 % intervals."
    if 0 < limit < math.inf:
        layers.append(_rule("x", limit) if judged == "drift" else _rule("y", -100 * limit))
        note += " The dashed line is the limit."
    note += " Regressions are red, and named where there is room."
    return Chart(name, section, title, note, layered(layers, title, HEIGHT), {"models": shown})


def _rule(axis: str, at: float, *, dashed: bool = True) -> Layer:
    channels = {axis: {"field": "at", "type": "quantitative"}}
    return layer("rule", channels, data=[{"at": at}], strokeDash=[4, 3] if dashed else [1, 0])
