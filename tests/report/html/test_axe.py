"""axe finds no fault of any impact on any page, on a wide screen, light and dark, and on a narrow one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import browsing
import galleries
import lists
import pytest
from browsing import Visit

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.report.board.board_page import Unfinished
from embedcore.report.gallery.gallery import gallery_data
from embedcore.report.gate.comparison_page import comparison_page
from embedcore.report.history.history_page import history_page
from embedcore.report.report_folder import pages
from embedcore.results.leaderboard import boards_of
from embedcore.results.run import Run

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def page_of(*runs: Run, **options: Any) -> bytes:
    boards = [board for run in runs for board in boards_of(run, browsing.TITLES)]
    return pages(boards, settings=runs[0].settings, machine=runs[0].versions, **options)["index.html"]


def comparison_of(*runs: Run) -> bytes:
    comparison, limits = compare(*runs), Limits(parse_limits(DEFAULT))
    return comparison_page(comparison, judge(comparison, limits), limits).encode()


def gallery_page() -> bytes:
    run, labels, found = galleries.a_run()
    (board,) = boards_of(run, browsing.TITLES)
    return page_of(run, galleries=[gallery_data(board, galleries.a_gallery(labels, found))])


def history_of_families() -> bytes:
    found = lists.some_history()
    return history_page(found, [series for series in found.series if series.of_family], ".benchmarks").encode()


PAGES = {
    "board": lambda: page_of(browsing.a_run()),
    "gallery": gallery_page,
    "running": lambda: page_of(browsing.a_run(3), unfinished=Unfinished(3, 40, "3 of 40 cases are done.", 60.0)),
    "datasets": lambda: page_of(browsing.a_run(1), browsing.a_run(2)),
    "nothing": lambda: page_of(browsing.a_run(0)),
    "comparison": lambda: comparison_of(*lists.two_runs()),
    "equal": lambda: comparison_of(*[lists.run_of()] * 2),
    "history": history_of_families,
}


def states(visit: Visit, page: str) -> Iterator[str]:
    """Bring the page into each of its states; yield their names."""
    yield "opened"
    if page == "board":
        visit.page.locator("#columns summary").click()
        yield "choice of columns"
        visit.page.locator("#columns summary").click()
        visit.page.locator("#table a.model").first.click()
        visit.page.locator("#model").wait_for()
        yield "details of a model"
        visit.page.keyboard.press("Escape")
    if page == "gallery":
        visit.page.locator("#gallery select").first.select_option("4")
        yield "two models side by side"


def faults(visit: Visit, scheme: str) -> list[tuple[str, str, list[str]]]:
    """Everything that axe finds: rule, impact and the first elements; inside a chart, which is an image, nothing is
    looked at. A dark page differs in its colours alone."""
    options: dict[str, Any] = {"resultTypes": ["violations"], "selectors": False}  # the rest takes time and is not read
    if scheme == "dark":
        options["runOnly"] = ["color-contrast"]
    found = visit.page.evaluate("options => axe.run({ exclude: ['.plot svg'] }, options)", options)["violations"]
    return [(fault["id"], fault["impact"], [node["html"][:200] for node in fault["nodes"][:3]]) for fault in found]


@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing(browser: Any, tmp_path: Path, page: str) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(PAGES[page]())
    with browsing.visiting(browser, file) as visit:
        for width in (1280, 390):
            visit.page.set_viewport_size({"width": width, "height": 900})
            visit.go().drawn()
            visit.page.evaluate(AXE)
            for scheme in ("light", "dark") if width == 1280 else ("light",):
                visit.page.emulate_media(color_scheme=scheme)
                for state in states(visit, page):
                    assert faults(visit, scheme) == [], (width, state)
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width  # only tables scroll sideways
        assert visit.errors == []
