"""The charts of the page in a real browser: choices, filters and tooltips."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
from browsing import Visit
from msgspec.structs import replace

from embedcore.report.board.answer import take, tied_rows
from embedcore.report.board.front import AXES, pareto_front
from embedcore.report.board.rows import rows
from embedcore.report.html.chart import OWN
from embedcore.results.leaderboard import boards_of

(BOARD,) = boards_of(browsing.a_run(), browsing.TITLES)
ROWS = rows(BOARD)
BY_ACC = [row["model"] for row in ROWS]
TAKEN = take(BOARD).model


def test_filters_of_the_table_remove_models_from_the_charts(visit: Visit) -> None:
    costs = visit.page.locator("[data-section='Cost of accuracy']")
    costs.scroll_into_view_if_needed()
    costs.locator(".plot svg.marks").wait_for()
    visit.settled()
    shown = "document.querySelector(\"[data-section='Cost of accuracy']\").view.data('models').length"
    assert visit.page.evaluate(shown) == len(BY_ACC)
    visit.page.locator("[name=licence]").select_option("mit")
    kept = [row["model"] for row in ROWS if row.get("licence") == "mit"]
    wanted = len(kept)
    visit.page.wait_for_function(f"() => {shown} === {wanted}")
    assert costs.locator(".filtered").inner_text() == f"Filtered: {wanted} of {len(BY_ACC)} models."
    leaders = visit.page.locator("[data-section=Leaders]")
    assert leaders.locator(".filtered").inner_text().startswith(f"Filtered: {wanted} of {len(BY_ACC)} models.")
    names = leaders.locator(".plot svg").inner_html()
    first, *_, last = [model for model in BY_ACC if model not in kept]
    assert kept[0] in names and first not in names and last not in names
    visit.page.get_by_role("button", name="Clear").click()
    visit.page.wait_for_function(f"() => {shown} === {len(BY_ACC)}")
    assert costs.locator(".filtered").inner_text() == ""
    visit.page.locator("[name=q]").fill("nothing is called so")
    visit.page.get_by_text("No model fits the filters, so all are shown.").first.wait_for()


MARKS = """() => {
    const found = [];
    const walk = (mark) => {
        for (const item of mark.items ?? []) {
            if (item.datum) found.push([mark.marktype, item.datum]);
            walk(item);
        }
    };
    walk(document.querySelector("[data-section='Cost of accuracy']").view.scenegraph().root);
    const rows = (kind) => found.filter(([type]) => type === kind).map(([, row]) => row);
    const front = rows("symbol").filter((row) => row.on_front), named = rows("text").filter((row) => row.model);
    return {
        front: front.map((row) => row.model),
        named: named.map((row) => row.model),
        bands: rows("rect").filter((row) => row.tie !== undefined).map((row) => [row.from, row.to]),
    };
}"""


def test_filters_of_the_table_change_the_front_and_its_band(visit: Visit) -> None:
    costs = visit.page.locator("[data-section='Cost of accuracy']")
    costs.locator(".plot svg.marks").wait_for()
    visit.settled()
    for licence in ("", "mit", "apache-2.0"):
        visit.page.locator("[name=licence]").select_option(licence)
        fitting = [row for row in ROWS if row.get("licence") == licence or not licence]
        visit.page.wait_for_function(
            "n => document.querySelector(\"[data-section='Cost of accuracy']\").view.data('models').length === n",
            arg=len(fitting),
        )
        front = pareto_front(fitting, AXES[0])
        drawn = visit.page.evaluate(MARKS)
        assert set(drawn["front"]) == {row["model"] for row in front}
        assert {front[0]["model"], front[-1]["model"]} <= set(drawn["named"])
        assert (TAKEN in drawn["named"]) == any(row["model"] == TAKEN for row in fitting)
        assert sorted(map(tuple, drawn["bands"])) == sorted(bands(front))


def bands(front: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """The lowest and the highest speed of neighbours on a front whose intervals of ranks overlap."""
    group: list[dict[str, Any]] = []
    for row in [*front, None]:
        if group and (row is None or row["rank95_high"] < group[-1]["rank95_low"]):
            found = [each["images_per_s"] for each in group]
            yield from [(min(found), max(found))] if len(found) > 1 else []
            group = []
        group.append(row)


def test_the_leaders_include_the_recommended_model(browser: Any, tmp_path: Path) -> None:
    run = browsing.a_run(60)
    last = tied_rows(boards_of(run, browsing.TITLES)[0])[-1]
    assert last.rank > 12, "not among the models that the chart shows"
    speed = {"forward": 1e5, "end_to_end": 50.0}
    results = [replace(one, images_per_s=speed) if one.model == last.result.model else one for one in run.results]
    with browsing.visiting(browser, browsing.written(dataclasses.replace(run, results=results), tmp_path)) as visit:
        leaders = visit.go().page.locator("[data-section=Leaders]")
        leaders.locator(".plot svg.marks").wait_for()
        assert last.result.model in visit.page.locator(".take .name").inner_text()
        assert last.result.model in leaders.locator(".plot svg").inner_html()
        assert leaders.locator(".filtered").inner_text() == "The best 11 and the recommended model are shown."


def test_a_tooltip_shows_no_missing_values(visit: Visit) -> None:
    leaders = visit.page.locator("[data-section=Leaders]")
    leaders.locator(".plot svg.marks").wait_for()
    visit.settled()
    leaders.locator(f"svg .mark-symbol path[fill='{OWN}']").first.hover(force=True)  # without speed and parameters
    tip = visit.page.locator("#vg-tooltip-element")
    tip.locator("td").first.wait_for()
    assert "own model" in tip.inner_text() and "–" in tip.inner_text()
    assert "undefined" not in tip.inner_text() and "NaN" not in tip.inner_text()


def test_charts_are_drawn_when_they_come_into_view_and_choices_change_them(visit: Visit) -> None:
    assert visit.page.locator(".plot svg").count() < 7
    for section in visit.page.locator(".chart").all():
        section.scroll_into_view_if_needed()
        section.locator(".plot svg.marks").wait_for()
    visit.settled()
    costs = visit.page.locator("[data-section='Cost of accuracy']")
    costs.get_by_role("combobox").select_option(label="GMACs")
    visit.page.wait_for_selector("[data-section='Cost of accuracy'][data-drawn='acc-gmacs']")
    assert "GMACs per image" in costs.locator("svg").inner_html()
    classes = visit.page.locator("[data-section='Classes']")
    classes.locator(".choice select").nth(1).select_option(BY_ACC[4])
    visit.page.wait_for_function(
        "name => document.querySelector(\"[data-section='Classes'] svg\").innerHTML.includes(name)",
        arg=f"acc of {BY_ACC[4]}",
    )


def test_a_family_stands_out_in_every_chart(visit: Visit) -> None:
    visit.page.locator("#legend").scroll_into_view_if_needed()
    visit.page.locator("[data-section=Leaders] .plot svg.marks").wait_for()
    visit.settled()
    visit.page.locator("#legend button", has_text="ResNet").click()
    assert "family=resnet" in visit.page.url
    faint = visit.page.locator("[data-section=Leaders] svg path[opacity='0.12']")
    assert faint.count() > 0
