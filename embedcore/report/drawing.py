"""Charts by Altair as files, by vl-convert and without a browser, and the scripts that draw them in a page."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
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
    "axisQuantitative": {"tickCount": 7},
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


def rendered(spec: Spec, kinds: Sequence[Kind]) -> list[bytes]:
    """A specification as the content of files, one of each kind. It can load nothing from anywhere."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, config=dict(CONFIG), allowed_base_urls=[])
    return [svg.encode() if kind == "svg" else vl_convert.svg_to_png(svg, scale=2) for kind in kinds]


@functools.cache
def scripts_begun() -> Callable[[], str]:
    """Begin to make the script that gives a page ``vegaEmbed``: Vega, Vega-Lite and Vega-Embed in one; the function
    waits for it. It takes a second or more, so another process does it meanwhile."""
    program = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle(sys.argv[1]).encode())"
    command = [sys.executable, "-c", program, "window.vegaEmbed = vegaEmbed;"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)

    @functools.cache
    def wait() -> str:
        script, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"vl-convert made no script: {errors.decode(errors='replace')}")
        return script.decode()

    return wait
