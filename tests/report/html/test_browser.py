"""The page in a real browser: its interactions, and protection against harmful data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import browsing
import pytest
from browsing import Visit

from embedcore.report.board.answer import take
from embedcore.report.board.front import AXES, pareto_front
from embedcore.report.board.marks import doubts, non_commercial
from embedcore.report.board.rows import rows
from embedcore.report.regret_text import card
from embedcore.results.class_table import class_table
from embedcore.results.leaderboard import boards_of
from embedcore.results.result import Result

RUN = browsing.a_run()
BY_ACC = [result.model for result in sorted(RUN.results, key=lambda r: (-r.scores["acc"], -r.scores["acc5"], r.model))]
ROWS = {result.model: result for result in RUN.results}
BOARD = boards_of(RUN, browsing.TITLES)[0]
TAKEN = take(BOARD).model


def expected(fits: Callable[[Result], bool]) -> list[str]:
    return [model for model in BY_ACC if fits(ROWS[model])]


def test_the_first_screen_and_the_table_are_shown(visit: Visit) -> None:
    assert visit.page.title() == "photos: embedcore report"
    assert f"{len(RUN.results)} models measured" in visit.page.locator("#summary").inner_text()
    assert TAKEN in visit.page.locator(".take .name").inner_text()
    said = visit.page.locator(".take").inner_text()
    assert "of the queries" in said and "the nearest reference is of the same class." in said
    trust = visit.page.locator(".trust").inner_text()
    assert "Is the order sure? no" in trust and "Can the speeds be compared?" in trust
    assert visit.models() == BY_ACC[: len(visit.models())]
    assert visit.count() == f"{len(RUN.results)} models"


def test_the_answer_comes_before_how_it_was_measured(browser: Any, file: Path) -> None:
    parts = (".take", ".trust", ".headline", ".picks", "#table", "#about")
    for width in (1280, 390):
        with browsing.visiting(browser, file, viewport={"width": width, "height": 800}) as visit:
            visit.go()
            boxes = [visit.page.locator(part).first.bounding_box() for part in parts]
            places = [(box["y"], box["x"]) for box in boxes if box is not None]
            assert len(places) == len(parts) and places == sorted(places)


def test_a_click_on_a_heading_sorts_both_ways_with_missing_values_last(visit: Visit) -> None:
    head = visit.page.get_by_role("button", name="parameters (M), sort")
    known = {model: result.params_m for model, result in ROWS.items() if result.params_m is not None}
    head.click()
    assert visit.models()[:5] == sorted(known, key=known.__getitem__)[:5]
    head.click()
    assert visit.models()[:5] == sorted(known, key=lambda model: -known[model])[:5]
    assert "sort=params_m%3Adesc" in visit.page.url


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("family", "resnet", lambda result: result.family == "resnet"),
        ("licence", "mit", lambda result: result.licence == "mit"),
        ("licence", "*free", lambda result: result.licence != "cc-by-nc-4.0"),
        ("pretraining", "laion2b", lambda result: result.pretraining == "laion2b"),
        ("input", "384", lambda result: result.input_size == (3, 384, 384)),
        ("weights", "hub", lambda result: result.weights["source"] == "hub"),
    ],
)
def test_each_filter_leaves_matching_rows_and_is_in_the_address(
    visit: Visit, name: str, value: str, fits: Callable[[Result], bool]
) -> None:
    visit.page.locator(f"#filters [name={name}]").select_option(value)
    wanted = expected(fits)
    assert 0 < len(wanted) < len(BY_ACC)
    assert visit.count() == f"{len(wanted)} of {len(BY_ACC)} models"
    assert visit.models() == wanted[: len(visit.models())]
    assert f"{name}={value}" in visit.page.url


def test_parameters_are_bounded_from_both_sides(visit: Visit) -> None:
    visit.page.locator("[name=min]").fill("10")
    visit.page.locator("[name=max]").fill("100")
    wanted = expected(lambda result: result.params_m is not None and 10 <= result.params_m <= 100)
    assert visit.count() == f"{len(wanted)} of {len(BY_ACC)} models"


def test_ties_are_a_filter(visit: Visit) -> None:
    visit.page.locator("[name=tied]").check()
    left = int(visit.count().split()[0])
    assert 1 < left < len(BY_ACC)
    assert f"{left} of {len(BY_ACC)} models are tied for first." in visit.page.locator(".trust").inner_text()


def test_the_front_of_acc_and_speed_is_a_filter(visit: Visit) -> None:
    visit.page.locator("[name=front]").check()
    wanted = [row["model"] for row in pareto_front(rows(BOARD), AXES[0])]
    assert visit.models() == [model for model in BY_ACC if model in wanted]
    assert "front=1" in visit.page.url


def test_the_code_of_the_model_to_take_is_copied(browser: Any, file: Path) -> None:
    with browsing.visiting(browser, file, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.go().page.get_by_role("button", name="Copy code").click()
        visit.page.get_by_role("button", name="Copied").wait_for()
        assert f"create_model('{TAKEN}'" in visit.page.evaluate("navigator.clipboard.readText()")


def test_the_answer_is_on_the_first_screen_also_of_a_phone(browser: Any, file: Path) -> None:
    for width, height in ((1280, 800), (390, 844)):
        with browsing.visiting(browser, file, viewport={"width": width, "height": height}) as visit:
            visit.go()
            last = visit.page.locator(".take .buttons, .headline .plot" if width == 1280 else ".take .buttons")
            assert all(box["y"] + 0.5 * box["height"] < height for each in last.all() if (box := each.bounding_box()))


def test_a_phone_shows_short_names_with_the_full_ones_for_readers(browser: Any, file: Path) -> None:
    with browsing.visiting(browser, file, viewport={"width": 390, "height": 844}) as visit:
        links = visit.go().page.locator("#table a.model")
        assert all("…" in text and len(text) <= 18 for text in links.all_inner_texts())
        assert [link.get_attribute("aria-label") for link in links.all()] == BY_ACC[: links.count()]


def test_names_on_an_axis_are_whole_or_short_and_in_order_of_rank(browser: Any, file: Path) -> None:
    with browsing.visiting(browser, file, viewport={"width": 390, "height": 844}) as visit:
        short = {
            link.get_attribute("aria-label"): link.inner_text()
            for link in visit.go().page.locator("#table a.model").all()
        }
        figure = visit.page.locator(".chart[data-section='Leaders']").first
        figure.scroll_into_view_if_needed()
        labels = figure.locator("svg .role-axis-label text")
        labels.first.wait_for()
        shown = [text for text in labels.all_text_contents() if text in short.values()]
        names = [name for name in BY_ACC if name in short]
        assert shown == [short[name] for name in names[: len(shown)]] and len(shown) >= 3


@pytest.mark.parametrize(
    ("width", "headings"),
    [(1280, ["rank", "95 % ranks", "parameters (M)", "speed (images/s)"]), (390, ["#", "M", "img/s"])],
)
def test_headings_are_words_and_short_on_a_phone(browser: Any, file: Path, width: int, headings: list[str]) -> None:
    with browsing.visiting(browser, file, viewport={"width": width, "height": 844}) as visit:
        shown = visit.go().page.locator("#table .tabulator-col:visible button").all_inner_texts()
        assert [heading for heading in shown if heading in headings] == headings


def test_search_accepts_words_in_any_order_and_clear_resets_all(visit: Visit) -> None:
    visit.page.locator("[name=q]").fill("MIT vit")
    wanted = expected(lambda result: "vit" in result.model + result.family and result.licence == "mit")
    assert wanted and visit.models() == wanted
    visit.page.locator("[name=q]").fill("nothing is called so")
    assert visit.count() == f"0 of {len(BY_ACC)} models"
    assert visit.page.get_by_text("No model fits these filters").is_visible()
    visit.page.get_by_role("button", name="Clear").click()
    assert visit.count() == f"{len(BY_ACC)} models"


def test_an_address_restores_the_same_view(visit: Visit) -> None:
    visit.page.locator("[name=licence]").select_option("mit")
    visit.page.get_by_role("button", name="speed (images/s), sort").click()
    visit.page.locator("#columns summary").click()
    visit.page.get_by_label("GMACs", exact=True).check()
    shown, address = visit.models(), visit.page.url
    visit.go(address.partition("#")[2])
    assert visit.models() == shown
    assert visit.page.locator("[name=licence]").input_value() == "mit"
    assert visit.page.get_by_role("button", name="GMACs, sort").is_visible()


def test_columns_are_the_readers_choice(visit: Visit) -> None:
    visit.page.locator("#columns summary").click()
    box = visit.page.get_by_label("licence", exact=True)
    box.uncheck()
    assert not visit.page.get_by_role("button", name="licence, sort").is_visible()
    box.check()
    assert visit.page.get_by_role("button", name="licence, sort").is_visible()


def downloaded(visit: Visit) -> list[dict[str, str]]:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download as CSV").click()
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))


def test_the_download_is_what_the_table_shows(visit: Visit) -> None:
    visit.page.locator("[name=family]").select_option("vit")
    rows = downloaded(visit)
    assert [row["model"] for row in rows] == expected(lambda result: result.family == "vit")
    for row in rows:
        assert float(row["acc"]) == ROWS[row["model"]].scores["acc"]
        assert float(row["acc_low"]) == ROWS[row["model"]].ci95["acc"][0]


def test_the_drawer_of_a_model_shows_details_and_has_an_address(visit: Visit) -> None:
    model = BY_ACC[1]
    visit.page.locator("#table a.model", has_text=model).click()
    drawer = visit.page.locator("#model")
    drawer.wait_for()  # the browser reports the new address asynchronously
    text = drawer.inner_text()
    for part in (
        model,
        "Scores",
        "hit5",
        "Neighbours in rank",
        "Best classes",
        "Worst classes",
        "Timing rounds",
        "10 rounds",
    ):
        assert part in text
    assert "significant" in text
    assert f"timm.create_model('{model}', pretrained=True" in text
    address = visit.page.url
    visit.page.keyboard.press("Escape")
    # The browser reports the closing a moment later; until then the address is the old one.
    visit.page.wait_for_function("() => !location.hash.includes('model=')")
    assert not drawer.is_visible()
    visit.go(address.partition("#")[2])
    assert drawer.is_visible() and model in drawer.inner_text()


def test_every_model_has_a_drawer_also_with_few_fields(visit: Visit) -> None:
    own = next(model for model, result in ROWS.items() if result.params_m is None)
    visit.go(f"model={quote(own)}")
    assert own in visit.page.locator("#model-name").inner_text()
    assert "Timing rounds" not in visit.page.locator("#model").inner_text()


def test_the_drawer_has_the_marks_of_a_model_in_words(visit: Visit) -> None:
    model = next(model for model, result in ROWS.items() if doubts(result))
    visit.go(f"model={quote(model)}")
    assert f"doubtful speed: {doubts(ROWS[model])[0]}" in visit.page.locator("#model .caveat").inner_text()


def test_rows_stay_when_the_table_comes_into_view(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 1280, "height": 300})  # the table is below the first screen
    visit.go()
    link = visit.page.locator("#table a.model").first.element_handle()
    link.scroll_into_view_if_needed()
    visit.page.wait_for_timeout(300)
    # Recreated rows would lose a click in progress and the keyboard focus.
    assert link.evaluate("link => link.isConnected")


def test_a_long_name_that_has_the_focus_stays_in_line_with_the_others(browser: Any, file: Path) -> None:
    with browsing.visiting(browser, file, viewport={"width": 390, "height": 900}) as visit:
        link = visit.go().page.locator("#table a.model").nth(8)
        link.scroll_into_view_if_needed()
        link.focus()
        lefts = "links => [...new Set(links.map(link => Math.round(link.getBoundingClientRect().left)))]"
        assert len(visit.page.locator("#table a.model").evaluate_all(lefts)) == 1


def test_a_higher_window_is_filled_with_rows(browser: Any, tmp_path: Path) -> None:
    rows = "document.querySelectorAll('.tabulator-row').length * 37"
    with browsing.visiting(browser, browsing.written(browsing.a_run(100), tmp_path)) as visit:
        visit.page.set_viewport_size({"width": 1280, "height": 200})
        visit.go()
        visit.page.set_viewport_size({"width": 1280, "height": 1200})
        visit.page.wait_for_function("document.querySelector('.tabulator-tableholder').clientHeight > 800")
        visit.page.wait_for_function(f"{rows} > document.querySelector('.tabulator-tableholder').clientHeight")


def test_back_closes_the_drawer(visit: Visit) -> None:
    visit.page.locator("#table a.model").first.click()
    visit.page.locator("#model").wait_for()
    visit.page.go_back()
    visit.page.locator("#model").wait_for(state="hidden")


def test_the_most_accurate_model_of_a_speed_has_a_speed_without_doubts(visit: Visit) -> None:
    speed = {model: result.images_per_s.get("forward", 0) for model, result in ROWS.items()}
    trusted = [model for model in BY_ACC if speed[model] and not doubts(ROWS[model])]
    assert 0 < len(trusted) < len(BY_ACC)
    visit.page.locator("#need").fill("300")
    said = visit.page.locator("#needed")
    best = next(model for model in trusted if speed[model] >= 300)
    assert best in said.inner_text()
    assert "doubtful" not in said.inner_text()
    assert ("not for commercial use" in said.inner_text()) == non_commercial(ROWS[best])
    visit.page.locator("#need").fill("1e9")
    assert said.inner_text() == "No model is that fast."


def test_everything_can_be_done_by_keyboard_alone(visit: Visit) -> None:
    press = visit.page.keyboard.press

    def focused() -> str:
        return str(
            visit.page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
        )

    def tab_to(name: str) -> None:
        for _ in range(120):
            if focused().strip() == name:
                return
            press("Tab")
        raise AssertionError(f"no way to {name!r} by the tabulator key")

    tab_to("Skip to the table")
    press("Enter")
    tab_to("parameters (M), sort")
    press("Enter")
    known = {model: result.params_m for model, result in ROWS.items() if result.params_m is not None}
    least = sorted(known, key=known.__getitem__)
    tab_to(least[0])
    for _ in range(15):
        press("ArrowDown")
    visit.page.wait_for_function("name => document.activeElement.textContent === name", arg=least[15])
    press("Enter")
    visit.page.locator("#model").wait_for()
    assert least[15] in visit.page.locator("#model-name").inner_text()
    press("Escape")
    visit.page.wait_for_function("name => document.activeElement.textContent === name", arg=least[15])


def test_harmful_names_are_shown_as_text(browser: Any, tmp_path: Path) -> None:
    run = browsing.a_run(hostile=True)
    names = [result.model for result in run.results]
    with browsing.visiting(browser, browsing.written(run, tmp_path), accept_downloads=True) as visit:
        dialogs: list[str] = []
        visit.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        visit.go()
        assert visit.page.locator("h1").inner_text() == browsing.HOSTILE[0]
        visit.drawn()
        for text in browsing.HOSTILE:
            assert text in names
            visit.go(f"model={quote(text)}")
            assert visit.page.locator("#model-name").inner_text() == text
        visit.page.keyboard.press("Escape")
        rows = downloaded(visit)
        assert {f"'{text}" for text in browsing.HOSTILE if text[0] in "=@"} <= {row["model"] for row in rows}
        assert not any(value.startswith(("=", "@", "+")) for row in rows for value in row.values())
        visit.page.locator("[data-section='acc and acc5']").scroll_into_view_if_needed()
        visit.page.locator(
            "[data-section='acc and acc5'] path[aria-label], [data-section='acc and acc5'] svg path"
        ).first.hover(force=True)
        assert dialogs == [] and visit.errors == []
        assert {url.partition("#")[0] for url in visit.requests} <= {"about:blank", visit.address, "data:,"}


def test_the_policy_lets_nothing_else_run_or_load(visit: Visit) -> None:
    refused = visit.page.evaluate(
        """async () => {
            const made = document.createElement("script");
            made.textContent = "window.ran = true";
            document.body.append(made);
            let asked = "";
            try { await fetch("https://example.com/"); } catch (error) { asked = error.name; }
            return [window.ran === undefined, asked];
        }"""
    )
    assert refused == [True, "TypeError"]
    visit.page.wait_for_timeout(50)
    assert len(visit.errors) >= 2
    visit.errors.clear()  # the refusal is logged to the console


def test_printed_pages_have_a_fitting_line_for_every_model(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 1000, "height": 1400})
    visit.page.emulate_media(media="print")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    lines = visit.page.locator(".tabulator-print-table tbody tr")
    assert [line.locator("a.model").inner_text() for line in lines.all()] == BY_ACC
    assert max(line.bounding_box()["height"] for line in lines.all()) < 40
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 1000
    visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert lines.count() == 0


def test_a_run_of_one_model_is_a_sensible_page(browser: Any, tmp_path: Path) -> None:
    with browsing.visiting(browser, browsing.written(browsing.a_run(1), tmp_path)) as visit:
        visit.go()
        assert visit.count() == "1 model"
        for section in visit.page.locator(".chart").all():
            section.scroll_into_view_if_needed()
            section.locator(".plot svg.marks").wait_for()
        assert visit.errors == []


def test_the_data_in_the_page_are_those_of_the_run(visit: Visit) -> None:
    data = json.loads(
        visit.page.locator("#data").inner_text() or visit.page.evaluate("document.getElementById('data').textContent")
    )
    assert [row["model"] for row in data["models"]] == BY_ACC


@pytest.mark.parametrize("width", [1280, 390])
def test_the_first_screen_says_what_other_rules_cost(browser: Any, file: Path, width: int) -> None:
    table = class_table(RUN.results, RUN.dataset)
    first, *others = card(BOARD, table)
    with browsing.visiting(browser, file, viewport={"width": width, "height": 800}) as visit:
        costs = visit.go().page.locator("#summary .take .rules")
        assert costs.inner_text() == "".join(map(str, first)) + " More"
        box = costs.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 800
        costs.locator("a").click()
        section = visit.page.locator("#summary .regret")
        assert section.locator("h3").inner_text() == "How far other rules of choice agree with acc"
        assert section.locator("p").count() == len(others)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        section.locator("a.model").first.click()
        visit.page.locator("dialog#model[open]").wait_for()
