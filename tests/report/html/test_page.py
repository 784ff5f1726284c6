"""The page as text: self-contained, and safe against its data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import browsing
import lists
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.report.gate.comparison_page import comparison_page
from embedcore.report.history.history_page import history_page
from embedcore.report.html.page import policy, render, static


class Parts(HTMLParser):
    """Scripts by kind, and the addresses of links and sources."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.meta: dict[str, str] = {}
        self._kind: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self._kind = (given.get("type") or "") if tag == "script" else None
        self.addresses += [value for name in ("src", "href", "action", "data") if (value := given.get(name))]
        if tag == "meta" and given.get("http-equiv"):
            self.meta[str(given["http-equiv"])] = str(given["content"])

    def handle_data(self, data: str) -> None:
        if self._kind is not None:
            self.scripts.append((self._kind, data))

    def handle_endtag(self, tag: str) -> None:
        self._kind = None


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hostile"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = browsing.a_run(hostile=request.param)
    return browsing.written(run, tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


def test_the_policy_names_every_script_of_the_page_and_nothing_else(page: str) -> None:
    parts = Parts(page)
    run = [text for kind, text in parts.scripts if kind == ""]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    stated = parts.meta["Content-Security-Policy"]
    assert set(re.findall(r"'sha256-([^']+)'", stated)) == hashes and len(run) == 4
    assert stated.startswith("default-src 'none'; script-src ")
    assert "unsafe" not in stated.replace("style-src 'unsafe-inline'", "") and "http" not in stated


def test_nothing_is_loaded_and_links_stay_in_the_folder(page: str) -> None:
    for address in Parts(page).addresses:
        assert address == "data:," or address.startswith("#") or not re.match(r"[a-z]+:|//", address), address


def test_data_are_json_that_is_read_back(page: str) -> None:
    data = [json.loads(text) for kind, text in Parts(page).scripts if kind == "application/json"]
    assert len(data) == 3 and len(data[0]["models"]) == 24


class Elements(HTMLParser):
    """The kinds of elements of a page, each with the names of its attributes; no scripts are run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.kinds: set[tuple[str, ...]] = set()
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.kinds.add((tag, *sorted(name for name, _ in attributes)))
        self.scripts += tag == "script"


def report_page(hostile: bool, folder: Path) -> str:
    return browsing.written(browsing.a_run(hostile=hostile), folder).read_text(encoding="utf-8")


def page_of_a_comparison(hostile: bool, folder: Path) -> str:
    comparison, limits = compare(*lists.two_runs(hostile=hostile)), Limits(parse_limits(DEFAULT))
    return comparison_page(comparison, judge(comparison, limits), limits)


def page_of_a_history(hostile: bool, folder: Path) -> str:
    found = lists.some_history(hostile=hostile)
    return history_page(found, found.series, browsing.HOSTILE[1] if hostile else ".benchmarks")


@pytest.mark.parametrize("page_of", [report_page, page_of_a_comparison, page_of_a_history])
def test_no_name_adds_an_element_or_an_attribute(page_of: Callable[[bool, Path], str], tmp_path: Path) -> None:
    plain, hostile = (Elements(page_of(hostile, tmp_path)) for hostile in (False, True))
    assert not any(name.startswith("on") for kind in hostile.kinds for name in kind[1:])
    assert hostile.scripts == plain.scripts
    assert {kind[0] for kind in hostile.kinds} <= {kind[0] for kind in plain.kinds} | {"wbr"}


def in_a_page(value: object) -> str:
    page: str = render("base.html.j2", title="x", data={"value": value})
    return page.partition('id="value">')[2].partition("</script>")[0]


@given(
    st.recursive(
        st.one_of(st.text(), st.integers(-(2**53), 2**53), st.none()),
        lambda of: st.one_of(st.lists(of), st.dictionaries(st.text(), of)),
    )
)
def test_no_text_ends_its_script_element(value: object) -> None:
    text = in_a_page(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_texts_survive_the_json_unchanged() -> None:
    assert json.loads(in_a_page(list(browsing.HOSTILE))) == list(browsing.HOSTILE)
    assert in_a_page(["</script>", "<!--", 1.5, float("nan")]) == r'["\u003c/script\u003e","\u003c!--",1.5,null]'


def test_a_script_that_would_end_its_element_is_refused() -> None:
    with pytest.raises(ValueError, match="would end its script element"):
        render("base.html.j2", title="x", data={}, scripts=["'</script>'"])


def test_a_page_without_scripts_runs_none() -> None:
    assert "script-src 'none'" in policy([])
    assert "&lt;b&gt;" in render("base.html.j2", title="<b>", data={})


def test_the_library_is_shipped_with_its_licence_and_unchanged() -> None:
    folder = resources.files("embedcore.report.html") / "static"
    assert "Permission is hereby granted, free of charge" in (folder / "tabulator.LICENSE.txt").read_text()
    script, style = (
        hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("tabulator.min.js", "tabulator.min.css")
    )
    assert (script[:16], style[:16]) == ("ffac518cb793c672", "edef8839235a4b6a")  # as npm has 6.5.3
    assert "sourceMappingURL" not in static("tabulator.min.js")
