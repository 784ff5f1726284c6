"""A comparison and its verdict as one HTML file that is whole in itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from embedcore.compare.comparison import Comparison
from embedcore.compare.limits import Limits
from embedcore.compare.verdict import LEVELS, Finding, Verdict
from embedcore.report.board.columns import NOTHING
from embedcore.report.gate import comparison_text as words
from embedcore.report.html.chart import (
    HEIGHT,
    MANY_MARKS,
    Chart,
    Datum,
    all_rows,
    family_encodings,
    layered,
    only_rows,
    without_overlap,
)
from embedcore.report.html.drawing import altair
from embedcore.report.html.page import families_of, lists_page
from embedcore.results.run import Run
from embedcore.zoo.families import family_of_slug

_MOST_NAMES = 30  # of the models that something is said of in one line
_LEAST_DRIFT = 1e-9
"""A drift below is drawn here: there is no zero on a logarithmic axis."""


def comparison_page(comparison: Comparison, verdict: Verdict, limits: Limits) -> str:
    """The page. `limits`: those of the verdict, of which the charts show the general ones."""
    base, new = comparison.base, comparison.new
    rows = chart_rows(comparison, verdict)
    drawn = charts(rows, limits.overall)
    counts = [(word.lower(), results) for word, results in words.unpaired(comparison) if results]
    facts = [
        ("Models in both runs", f"{len(comparison.pairing.pairs):,}"),
        ("Compared", f"{comparison.compared:,}"),
        *((word.capitalize(), f"{len(results):,}") for word, results in counts),
    ]
    return lists_page(
        "comparison.html.j2",
        title=f"{'Passed' if verdict.passed else 'Failed'}: {base.name} → {new.name}",
        rows=rows,
        choices=families_of([*rows, *_listed(verdict, rows)]),
        drawn=drawn,
        base=base.name,
        new=new.name,
        passed=verdict.passed,
        summary=words.summary(comparison, verdict).partition(": ")[2],
        facts=facts,
        unpaired=[f"{w.capitalize()}: {words.names((r.model for r in of), _MOST_NAMES)}" for w, of in counts],
        not_compared=list(words.not_compared(comparison, _MOST_NAMES)),
        levels=[
            (level, words.heading_of(level, found), list(_models(found)))
            for level in LEVELS
            if (found := verdict.of(level))
        ],
        groups="Families",
        families=[(slug, family_of_slug(slug).title, cells) for slug, *cells in words.family_rows(comparison)],
        ranks=words.rank_lines(comparison),
        sides=list(sides(base, new)),
        legend=_legend(comparison),
    )


def _listed(verdict: Verdict, rows: Sequence[Datum]) -> Iterator[Datum]:
    """The models of the lists that no chart shows."""
    shown = {row["model"] for row in rows}
    for model, family in dict.fromkeys((finding.model, finding.family) for finding in verdict.findings):
        if model not in shown:
            yield {"family": family, "title": family_of_slug(family).title}


def _models(found: Sequence[Finding]) -> Iterator[dict[str, Any]]:
    """The findings of one level by model: what, base, new, change and limit of each, and the reasons once."""
    for model, same in groupby(found, key=lambda finding: finding.model):
        findings = list(same)
        because = [f"accepted: {finding.because}" for finding in findings if finding.because]
        yield {
            "model": model,
            "family": findings[0].family,
            "reasons": list(dict.fromkeys([*because, *(cause for finding in findings for cause in finding.causes)])),
            "rows": [
                (*words.cells_of(f.change), words.limit_words(f) if f.limit and math.isfinite(f.limit) else "")
                for f in findings
            ],
        }


def sides(base: Run, new: Run) -> Iterator[tuple[str, str, str]]:
    """What is known of both runs, (what, base, new): files, versions, machine, images; settings where they differ."""

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


def _legend(comparison: Comparison) -> list[str]:
    return [
        "Regressions are worse than their limit by more than chance explains, and nobody has accepted them: any of "
        "them fails the comparison.",
        "acc is the share of queries whose nearest neighbour is of their class, acc5 the share of their class among "
        "the five nearest; pt are percentage points. Drift is how far embeddings of the same images moved, relative to "
        "their length.",
        "Intervals hold 95 of 100 times; scores are tested query by query, speed by rounds and how sessions differ.",
        *([] if "speed" in comparison.barriers else [words.noise_words(comparison)]),
    ]


def chart_rows(comparison: Comparison, verdict: Verdict) -> list[Datum]:
    """A row of the charts for each model of which something was compared."""
    level: dict[tuple[str, str], str] = {(f.model, f.change.what): f.level for f in verdict.findings}
    rows: list[Datum] = []
    for model in comparison.models:
        row: Datum = {}
        for change in model.changes:
            if change.what in ("acc", "images_per_s"):
                name = "acc" if change.what == "acc" else "speed"
                unit = -100.0  # above 0 is better; percentage points and percent
                row |= {name: change.base, f"{name}_new": change.new, f"{name}_change": unit * change.change}
                if change.low is not None and change.high is not None:
                    row |= {f"{name}_low": unit * change.high, f"{name}_high": unit * change.low}
                row[f"{name}_level"] = level.get((model.model, change.what), "equal")
            elif change.what == "drift" and math.isfinite(change.change):
                row |= {"drift": change.change, "drawn_drift": max(change.change, _LEAST_DRIFT)}
                row["drift_level"] = level.get((model.model, "drift"), "equal")
        if row:
            title = family_of_slug(model.family).title
            rows.append({"id": len(rows), "model": model.model, "family": model.family, "title": title, **row})
    return rows


def charts(rows: Sequence[Datum], limits: Mapping[str, float]) -> list[Chart]:
    """The charts in which there is something to see. `limits`: as `Limits.overall`."""
    with altair().utils.schemapi.debug_mode(False):
        found = [_speed(rows, limits), _accuracy(rows, limits), _drift(rows, limits)]
    return [chart for chart in found if chart is not None]


def _speed(rows: Sequence[Datum], limits: Mapping[str, float]) -> Chart | None:
    alt = altair()
    shown = [row for row in rows if row.get("speed")]
    if not shown:
        return None
    x = alt.X("speed:Q", title="images/s of base", scale=alt.Scale(type="log", nice=False, padding=20))
    title = "Change of speed"
    return Chart(
        "speed",
        "Speed",
        title,
        f"Above 0 a model became faster.{_lines(shown, 'speed')}{_limit_note(limits, 'images_per_s')}{_NAMED}",
        layered(
            alt,
            _changes(alt, shown, "speed", "speed", x, limits.get("images_per_s"), "images/s, % more"),
            title,
            HEIGHT,
        ),
        {"models": shown},
    )


def _accuracy(rows: Sequence[Datum], limits: Mapping[str, float]) -> Chart | None:
    alt = altair()
    shown = [row for row in rows if "acc_change" in row]
    if not shown:
        return None
    x = alt.X("acc:Q", title="acc of base", scale=alt.Scale(zero=False, nice=False, padding=20))
    title = "Change of acc"
    return Chart(
        "accuracy",
        "Accuracy",
        title,
        f"Above 0 a model became better.{_lines(shown, 'acc')}{_limit_note(limits, 'acc')}{_NAMED}",
        layered(
            alt, _changes(alt, shown, "acc", "acc", x, limits.get("acc"), "acc, percentage points more"), title, HEIGHT
        ),
        {"models": shown},
    )


def _drift(rows: Sequence[Datum], limits: Mapping[str, float]) -> Chart | None:
    alt = altair()
    shown = [row for row in rows if "drift" in row and "acc_change" in row]
    if not shown:
        return None
    x = alt.X(
        "drawn_drift:Q",
        title="drift of the embeddings",
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=alt.Axis(format=".0e", tickCount=6),
    )
    limit = limits.get("drift", math.inf)
    layers = _changes(
        alt, shown, "acc", "drawn_drift", x, None, "acc, percentage points more", named="drift", lines=False
    )
    if 0 < limit < math.inf:
        layers.append(_rule(alt, "x", limit))
    missing = len(rows) - len(shown)
    title = "Drift of the embeddings and change of acc"
    return Chart(
        "drift",
        "Embeddings",
        title,
        f"The further to the right, the more the embeddings of the same images moved; up to {_LEAST_DRIFT:g} all "
        f"stand there.{_limit_note(limits, 'drift')}{_NAMED}"
        + (f" {missing:,} models without this figure, or of another width, are left out." if missing else ""),
        layered(alt, layers, title, HEIGHT),
        {"models": shown},
    )


_NAMED = " Regressions are named where there is room."


def _lines(shown: Sequence[Datum], name: str) -> str:
    has = len(shown) < MANY_MARKS and any(f"{name}_low" in row for row in shown)
    return " Upright lines are 95 % intervals." if has else ""


def _limit_note(limits: Mapping[str, float], what: str) -> str:
    return " The dashed line is the limit." if 0 < limits.get(what, math.inf) < math.inf else ""


def _changes(
    alt: Any,
    shown: Sequence[Datum],
    name: str,
    field: str,
    x: Any,
    limit: float | None,
    title: str,
    *,
    named: str = "",
    lines: bool = True,
) -> list[Any]:
    """Layers: the changes upwards over `field` with its encoding `x`; 0 and the limit as lines. Models with a
    regression of `named`, else of `name`, have their names."""
    y = alt.Y(f"{name}_change:Q", title=title, scale=alt.Scale(padding=16, nice=False))
    base = all_rows(alt).transform_filter(f"isValid(datum.{name}_change) && isValid(datum['{field}'])")
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("title:N", title="family"),
        *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("acc", "acc_new") if name == "acc"),
        *(alt.Tooltip(f"{key}:Q", format=".4~s") for key in ("speed", "speed_new") if name == "speed"),
        alt.Tooltip(f"{name}_change:Q", title="change", format="+.2f"),
        alt.Tooltip("drift:Q", format=".2g"),
        alt.Tooltip(f"{named or name}_level:N", title="said to be"),
    ]
    layers = [_rule(alt, "y", 0.0, dashed=False)]
    if limit is not None and 0 < limit < math.inf:
        layers.append(_rule(alt, "y", -100 * limit))
    if lines and len(shown) < MANY_MARKS and any(f"{name}_low" in row for row in shown):
        layers.append(
            base.mark_rule(opacity=0.45).encode(x, alt.Y(f"{name}_low:Q", title=title), alt.Y2(f"{name}_high:Q"))
        )
    points = base.mark_point(filled=True, size=90 if len(shown) < MANY_MARKS else 40)
    layers.append(points.encode(x, y, tooltip=tooltip, **family_encodings(alt, shown)))
    bad = without_overlap([r for r in shown if r[f"{named or name}_level"] == "regression"], shown, f"{name}_change")
    values = sorted(row[field] for row in shown)
    middle = values[len(values) // 2]
    for align, dx, of_side in (
        ("left", 8, [row for row in bad if row[field] <= middle]),
        ("right", -8, [row for row in bad if row[field] > middle]),
    ):
        if of_side:
            label = only_rows(alt, of_side).mark_text(align=align, dx=dx, dy=-9, limit=300)
            layers.append(label.encode(x, y, text="model:N"))
    return layers


def _rule(alt: Any, axis: str, at: float, *, dashed: bool = True) -> Any:
    mark = alt.Chart(alt.InlineData(values=[{"at": at}])).mark_rule(strokeDash=[4, 3] if dashed else [1, 0])
    return mark.encode(y="at:Q") if axis == "y" else mark.encode(x="at:Q")
