"""What models retrieve, as the page shows it, in a real browser."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import browsing
import galleries
import pytest
from browsing import Visit


@pytest.fixture(scope="module")
def with_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, labels, found = galleries.a_run(classes=[*browsing.HOSTILE, "g", "h", "i", "j"])
    labels = dataclasses.replace(labels, names=[*browsing.HOSTILE, *labels.names[len(browsing.HOSTILE) :]])
    return browsing.written(run, tmp_path_factory.mktemp("gallery"), galleries.a_gallery(labels, found))


def opened_gallery(visit: Visit) -> Any:
    visit.go()
    gallery = visit.page.locator("#gallery")
    gallery.scroll_into_view_if_needed()
    gallery.locator(".card").first.wait_for()
    return gallery


def test_the_gallery_marks_right_and_wrong_in_every_part(browser: Any, with_gallery: Path) -> None:
    with browsing.visiting(browser, with_gallery) as visit:
        dialogs: list[str] = []
        visit.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        gallery = opened_gallery(visit)
        parts = gallery.locator("select").first
        titles = parts.locator("option").all_inner_texts()
        assert [title.split()[0] for title in titles] == ["Every", "Only", "Confused", "One", "Two"]
        for place, title in enumerate(titles):
            parts.select_option(str(place))
            cards = gallery.locator(".card")
            assert 0 < cards.count() <= 24
            for card in cards.all()[:6]:
                of_query = card.locator(".query .of").inner_text()
                for row in card.locator(".answers").all():
                    assert row.locator("li").count() == 5
                    for item in row.locator("li").all():
                        right = item.locator(".of").inner_text() == of_query
                        says = item.locator("img, .blank").first
                        text = says.get_attribute("alt") or says.get_attribute("aria-label") or ""
                        assert text.startswith("right: " if right else "wrong: ")
                        assert item.locator(".mark").inner_text() == ("✓" if right else "✗")
                        style = says.evaluate("element => getComputedStyle(element).borderStyle")
                        assert style == ("solid" if right else "dashed")
                        assert re.fullmatch(r"-?\d\.\d{3}", item.locator(".at").inner_text())
            if title.startswith("Every"):
                assert cards.first.locator(".answers li").first.get_attribute("class") == "wrong"
            if title.startswith("Two"):
                assert cards.first.locator(".answers").count() == 2
                nearest = [
                    row.locator("li").first.get_attribute("class") for row in cards.first.locator(".answers").all()
                ]
                assert sorted(nearest) == ["right", "wrong"]
                pair = gallery.locator("#gallery-paired").inner_text()
                assert pair.count("is right: ") == 2 and "Difference in acc: " in pair and "95 % interval" in pair
                gallery.locator("select").nth(2).select_option(label=galleries.MODELS[3])
                gallery.locator("select").nth(1).select_option(label=galleries.MODELS[2])
                assert f"Only {galleries.MODELS[2]} is right: " in gallery.locator("#gallery-paired").inner_text()
                assert galleries.MODELS[3] in cards.first.inner_text()
        assert "Photos by somebody, CC BY 4.0" in visit.page.locator("section:has(#gallery)").inner_text()
        assert "Images without a picture: 1" in visit.page.locator("#gallery-missing").inner_text()
        assert visit.page.locator("#gallery script").count() == 0
        assert dialogs == [] and visit.errors == []
        assert {url.partition("#")[0].partition(",")[0] for url in visit.requests} <= {
            *("about:blank", visit.address, "data:", "data:image/webp;base64")
        }
        loaded = "[...document.querySelectorAll('#gallery img')].filter(i => i.complete && i.naturalWidth > 0).length"
        visit.page.wait_for_function(f"{loaded} > 0")


def test_without_neighbours_the_page_explains_how_to_get_them(browser: Any, tmp_path: Path) -> None:
    with browsing.visiting(browser, browsing.written(browsing.a_run(), tmp_path)) as visit:
        visit.go()
        output = visit.page.locator("section:has(#gallery-heading)").inner_text()
        assert "--embed-report DIR" in output and "embedcore report" in output
        assert visit.page.locator("#gallery").count() == 0


def test_the_first_screen_shows_queries_that_every_model_gets_wrong(browser: Any, with_gallery: Path) -> None:
    with browsing.visiting(browser, with_gallery) as visit:
        strip = visit.go().page.locator(".hardest")
        assert strip.locator("h3").inner_text() == "Every model gets these wrong"
        assert 0 < strip.locator("img").count() <= 8
        for item in strip.locator("li").all():
            assert item.locator(".taken").inner_text() != f"nearest: {item.locator('.of').inner_text()}"
