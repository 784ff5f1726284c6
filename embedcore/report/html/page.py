"""A report as one HTML file that is whole in itself: it opens from a disk, and its policy lets it load nothing at all.

What comes from data goes through Jinja's autoescape, or as JSON into a script element that no browser runs and that
no text can end, from where the scripts put it into the page as text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from embedcore.report.html.chart import Chart
from embedcore.report.html.drawing import scripts_begun
from embedcore.report.html.theme import look_of
from embedcore.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment


def lists_page(
    template: str,
    *,
    title: str,
    rows: Sequence[dict[str, Any]],
    choices: Sequence[Mapping[str, Any]],
    drawn: Sequence[Chart],
    **context: Any,
) -> str:
    """A page of lists and charts. `rows`: the charts' ``models``; `choices`: what its lists are narrowed to and its
    charts have stand out, ``slug``, ``title``, ``colour`` and ``shape`` of each."""
    return render(
        template,
        title=title,
        data={"data": {"models": rows, "choices": choices, "charts": [chart_data(chart) for chart in drawn]}},
        scripts=[static("charts.js"), static("lists.js"), *([scripts_begun()()] if drawn else [])],
        styles=[static("page.css")],
        sections=list(dict.fromkeys(chart.section for chart in drawn)),
        **context,
    )


def families_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Slug, title, look and number of models of each family, by title."""
    families: dict[str, dict[str, Any]] = {}
    for row in rows:
        look = look_of(row["family"])
        family = families.setdefault(
            row["family"],
            {"slug": row["family"], "title": row["title"], "colour": look.colour, "shape": look.shape, "count": 0},
        )
        family["count"] += 1
    return sorted(families.values(), key=lambda family: str(family["title"]).casefold())


def chart_data(chart: Chart, files: Sequence[str] = ()) -> dict[str, Any]:
    """What the page needs to draw it; rows of ``models`` are there already."""
    return {
        "files": files,
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
    """A template with what it inlines. `data`: the ``id`` of a script element to what it holds as JSON; `scripts` and
    `styles`: whole texts, in their order, of which the page's policy lets these scripts run and no other."""
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=policy(scripts),
            data={name: embedded_json(value) for name, value in data.items()},
            scripts=[_trusted(script, "script") for script in scripts],
            styles=[_trusted(style, "style") for style in styles],
            version=VERSION,
            **context,
        )
    )


def policy(scripts: Iterable[str]) -> str:
    """The content security policy of a page that runs these scripts and loads nothing, from nowhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    # Libraries set styles of elements; with images from the page alone no style can ask anybody for anything.
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


def embedded_json(value: object) -> Any:
    r"""`value`, of plain values, as JSON that can stand in a script element: nothing in it can end the element or begin
    a comment. Numbers that are not finite become null.

    >>> print(embedded_json(["</script>", "<!--", 1.5, float("nan")]))
    ["\u003c/script\u003e","\u003c!--",1.5,null]
    """
    from markupsafe import Markup

    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _trusted(text: str, element: str) -> Any:
    from markupsafe import Markup

    if f"</{element}" in text.lower() or "<!--" in text:
        raise ValueError(f"a text to be inlined would end its {element} element")
    return Markup(text)


def _breakable(name: str) -> Any:
    """A model's name that may go on in the next line after its dots and underscores."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[._])", name))


@functools.cache
def static(name: str) -> str:
    """A file of ``static/``."""
    text = resources.files("embedcore.report.html").joinpath("static", name).read_text(encoding="utf-8")
    return re.sub(r"^(//|/\*)# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)  # a file that is not there


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("embedcore.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment
