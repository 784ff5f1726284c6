"""Self-contained HTML pages: they open from a disk, and their content security policy lets them load nothing.

Data goes through Jinja's autoescape, or as JSON into a script element that no browser runs and no text can end; the
scripts insert it as text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from embedcore.report.html.drawing import start_scripts
from embedcore.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

    from embedcore.report.html.chart import Chart


class ListBody(NamedTuple):
    """The rows of one model or family in a table of a page of lists."""

    group: str
    """The ``slug`` of the choice by which it is filtered."""
    name: str
    rows: Sequence[Sequence[object]]
    """Cells without the name."""
    reasons: Sequence[str] = ()
    worse: bool = False


def lists_page(
    template: str,
    *,
    title: str,
    rows: Sequence[dict[str, Any]],
    choices: Sequence[Mapping[str, Any]],
    drawn: Sequence[Chart],
    **context: Any,
) -> str:
    """Return a page of lists and charts. `rows`: the charts' ``models``; `choices`: ``slug``, ``title`` and perhaps the
    ``colour`` of the groups by which its lists are filtered and its charts highlighted."""
    return render(
        template,
        title=title,
        data={"data": {"models": rows, "choices": choices, "charts": [chart_data(chart) for chart in drawn]}},
        scripts=[static("charts.js"), static("lists.js"), *([start_scripts()()] if drawn else [])],
        styles=[static("page.css")],
        sections=list(dict.fromkeys(chart.section for chart in drawn)),
        **context,
    )


def families_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return slug, title and number of models of each family, sorted by title."""
    families: dict[str, dict[str, Any]] = {}
    for row in rows:
        slug = row["family"]
        families.setdefault(slug, {"slug": slug, "title": row["title"], "count": 0})["count"] += 1
    return sorted(families.values(), key=lambda family: str(family["title"]).casefold())


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return the page's data for a chart, without the rows of ``models``, which the page has already."""
    return {
        **{key: getattr(chart, key) for key in ("name", "section", "title", "note", "label", "spec")},
        "data": {name: rows for name, rows in chart.data.items() if name != "models"},
        "names": dict(chart.names),
    }


def render(
    template: str,
    *,
    title: str,
    data: Mapping[str, Any],
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    **context: Any,
) -> str:
    """Render a template. `data`: JSON values by the ``id`` of their script element; `scripts` and `styles`: texts to
    inline, in order. The page's policy allows these scripts and no others."""
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=policy(scripts),
            data=data,
            scripts=[_trusted(script, "script") for script in scripts],
            styles=[_trusted(style, "style") for style in styles],
            version=VERSION,
            **context,
        )
    )


def policy(scripts: Iterable[str]) -> str:
    """Return the content security policy of a page that runs these scripts and loads nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    # Libraries set inline styles; since images come from the page alone, no style can send a request.
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _trusted(text: str, element: str) -> Any:
    from markupsafe import Markup

    if f"</{element}" in text.lower() or "<!--" in text:
        raise ValueError(f"an inlined text would end its {element} element")
    return Markup(text)


def _breakable(name: str) -> Any:
    """Return a model's name that may break after its dots and underscores."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[._])", name))


def _unbroken(value: Any) -> Any:
    """Return text with no-break spaces before its percent signs; other values are unchanged."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


@functools.cache
def static(name: str) -> str:
    """Return the text of a file in ``static/``."""
    text = resources.files("embedcore.report.html").joinpath("static", name).read_text(encoding="utf-8")
    return re.sub(r"^(//|/\*)# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)  # not shipped


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("embedcore.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    environment.filters["breakable"] = _breakable
    # `tojson` escapes what could end the element; msgspec makes null of non-finite numbers.
    environment.policies["json.dumps_function"] = lambda value: msgspec.json.encode(value).decode()
    environment.policies["json.dumps_kwargs"] = {}
    return environment
