"""The pages of a comparison, a history and a running session in a real browser."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import browsing
import lists
import pytest
from browsing import Visit

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.report.board.board_page import Unfinished
from embedcore.report.gate.comparison_page import comparison_page
from embedcore.report.history.history_page import history_page
from embedcore.report.report_folder import pages
from embedcore.results.leaderboard import boards_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages, with plain and with hostile names."""
    folder, limits = tmp_path_factory.mktemp("pages"), Limits(parse_limits(DEFAULT))
    pages = {}
    for kind, hostile in (("plain", False), ("hostile", True)):
        comparison = compare(*lists.two_runs(hostile=hostile))
        pages[f"comparison-{kind}"] = comparison_page(comparison, judge(comparison, limits), limits)
        found = lists.some_history(hostile=hostile)
        name = browsing.HOSTILE[1] if hostile else ".benchmarks"
        pages[f"history-{kind}"] = history_page(found, [s for s in found.series if s.of_family], name)
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def is_closed(visit: Visit) -> bool:
    return visit.errors == [] and {u.partition("#")[0] for u in visit.requests} <= {
        "about:blank",
        visit.address,
        "data:,",
    }


@pytest.mark.parametrize("page", ["comparison", "history"])
def test_harmful_names_are_shown_as_text(browser: Any, files: dict[str, Path], page: str) -> None:
    with browsing.visiting(browser, files[f"{page}-hostile"]) as visit:
        dialogs: list[str] = []
        visit.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        visit.go().drawn()
        shown = visit.page.locator("#list-heading ~ *, section.step").all_inner_texts()
        for text in browsing.HOSTILE:
            assert any(text in part for part in shown), text
        visit.page.locator("#filters [name=family]").select_option(browsing.HOSTILE[0])
        visit.page.locator(".chart path").first.hover(force=True)
        assert dialogs == [] and is_closed(visit), visit.errors


@pytest.mark.parametrize("page", ["comparison", "history"])
def test_the_first_key_skips_to_the_content(browser: Any, files: dict[str, Path], page: str) -> None:
    with browsing.visiting(browser, files[f"{page}-plain"]) as visit:
        visit.go().page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        visit.page.keyboard.press("Enter")
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.closest('main') !== null")


def test_lists_are_filtered_and_the_address_restores_the_view(browser: Any, files: dict[str, Path]) -> None:
    with browsing.visiting(browser, files["comparison-plain"]) as visit:
        visit.go()
        names = visit.page.locator(".regression .model:visible")
        assert names.all_inner_texts() == [lists.GONE, lists.WORSE, lists.SLOWER]
        visit.page.locator("[name=q]").press_sequentially("bilinear acc")
        assert names.all_inner_texts() == [lists.WORSE]
        address = visit.page.url.partition("#")[2]
        visit.go(address)
        assert names.all_inner_texts() == [lists.WORSE]
        visit.page.get_by_role("button", name="Clear").click()
        visit.page.locator("[name=family]").select_option("resnet")
        assert names.all_inner_texts() == [lists.GONE]
        assert "family=resnet" in visit.page.url
        visit.drawn()
        assert visit.page.locator("[data-section=Speed] svg path[opacity='0.12']").count() > 0
        assert is_closed(visit), visit.errors


def test_the_page_of_a_running_session_reloads_with_its_filters(browser: Any, tmp_path: Path) -> None:
    run = browsing.a_run(12)

    def write(unfinished: Unfinished | None) -> Path:
        made = pages(boards_of(run, browsing.TITLES), settings={}, machine={}, unfinished=unfinished)
        (tmp_path / "index.html").write_bytes(made["index.html"])
        return tmp_path / "index.html"

    file = write(Unfinished(12, 40, "This run goes on: 12 of 40 cases are done", 60.0))
    with browsing.visiting(browser, file) as visit:
        visit.page.clock.install()
        visit.go("licence=mit")
        assert visit.page.locator("progress").get_attribute("value") == "12"
        assert visit.page.get_by_text("They are added when the run ends.").is_visible()
        before = visit.models()
        write(Unfinished(12, 40, "This run goes on: 13 of 40 cases are done", 60.0))
        visit.page.locator("[name=q]").focus()
        visit.page.clock.run_for(61_000)
        assert visit.page.get_by_text("12 of 40 cases").is_visible(), "not while somebody types"
        visit.page.locator("[name=q]").blur()
        visit.page.get_by_role("button", name="Pause updates").click()
        visit.page.clock.run_for(200_000)
        assert visit.page.get_by_text("12 of 40 cases").is_visible(), "not while it is paused"
        visit.page.get_by_role("button", name="Resume updates").click()
        visit.page.clock.run_for(55_000)
        with visit.page.expect_navigation():
            visit.page.clock.run_for(6_000)
        assert visit.page.get_by_text("13 of 40 cases").is_visible()
        visit.page.wait_for_selector("body[data-ready]")
        assert visit.page.url.endswith("#licence=mit") and visit.models() == before
        assert visit.page.get_by_text("No update for").count() == 0
        os.utime(file, times=(time.time() - 2730, time.time() - 2730))
        with visit.page.expect_navigation():
            visit.page.clock.run_for(61_000)
        visit.page.get_by_text(re.compile("13 of 40 cases are done No update for (4[6-9]|5[0-5]) minutes: ")).wait_for()
        write(None)
        with visit.page.expect_navigation():
            visit.page.clock.run_for(61_000)
        assert visit.page.locator("progress").count() == 0
        visit.page.evaluate("window.same = true")
        visit.page.clock.run_for(600_000)
        assert visit.page.evaluate("window.same"), "a run that is finished is not looked at again"
        assert is_closed(visit), visit.errors
