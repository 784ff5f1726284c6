"""Charts by Altair as files, by vl-convert and without a browser, and the scripts that draw them in a page."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Literal

Spec = dict[str, Any]
Kind = Literal["svg", "png"]

# Marks take their colours from here, so that a page can give others in the dark.
CONFIG: Mapping[str, Any] = {
    "background": "white",
    "font": "Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#e6e6e6", "domainColor": "#888", "tickColor": "#888", "labelFontSize": 11},
    "axisY": {"labelLimit": 330},
    "title": {"anchor": "start", "fontSize": 15, "subtitleColor": "#555", "offset": 12},
    "legend": {"orient": "bottom", "columns": 4, "title": None, "labelLimit": 190, "symbolLimit": 0},
    "text": {"color": "#222"},
    "rule": {"color": "#777"},
    "line": {"color": "#777"},
}


@functools.cache
def altair() -> Any:
    """The library, imported when it is needed; it has no types that mypy could check chains of calls by."""
    return importlib.import_module("altair")


def spec_of(chart: Any) -> Spec:
    """The Vega-Lite specification of an Altair chart. It is not validated again, which would take most of the time."""
    spec: Spec = chart.to_dict(validate=False)
    return spec


def rendered(spec: Spec, kind: Kind) -> bytes:
    """A specification as a file's content. It can load nothing from anywhere."""
    import vl_convert

    if kind == "png":
        png: bytes = vl_convert.vegalite_to_png(spec, scale=2, config=dict(CONFIG), allowed_base_urls=[])
        return png
    return vl_convert.vegalite_to_svg(spec, config=dict(CONFIG), allowed_base_urls=[]).encode()


@functools.cache
def scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which gives a page ``vegaEmbed``."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle
