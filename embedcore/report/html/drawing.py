"""Charts by Altair as files, by vl-convert and without a browser, and the scripts that draw them in a page."""

from __future__ import annotations

import base64
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec

from embedcore.errors import EmbedcoreError
from embedcore.plain import one_line

Spec = dict[str, Any]
Kind = Literal["svg", "png"]

# Marks take their colours from here, so that a page can give others in the dark.
CONFIG: Mapping[str, Any] = {
    "background": "white",
    "font": "Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#e6e6e6", "domainColor": "#888", "tickColor": "#888", "labelFontSize": 11},
    "axisY": {"labelLimit": 0},  # a limit would have each label measured several times, which takes most of the time
    "axisQuantitative": {"tickCount": 7},
    "title": {"anchor": "start", "fontSize": 15, "subtitleColor": "#555", "offset": 12},
    "legend": {"orient": "bottom", "columns": 4, "title": None, "labelLimit": 190, "symbolLimit": 0},
    "text": {"color": "#222"},
    "rule": {"color": "#777"},
    "line": {"color": "#777"},
}


class DrawingFailed(EmbedcoreError):
    """The process that draws charts has ended without them."""


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


def rendering_begun(specs: Sequence[Spec], kinds: Sequence[Kind]) -> Callable[[], list[list[bytes]]]:
    """Begin to draw specifications in other processes, as many as there are cores; the function waits for what
    `rendered` gives for each."""
    workers = max(1, min(os.cpu_count() or 1, len(specs), _MOST_WORKERS))
    # Every worker gets as much text as the others, and so about as much to draw.
    texts = [msgspec.json.encode(spec).decode() for spec in specs]
    shares: list[list[int]] = [[] for _ in range(workers)]
    for place in sorted(range(len(specs)), key=lambda place: -len(texts[place])):
        min(shares, key=lambda share: sum(len(texts[other]) for other in share)).append(place)
    pool = ThreadPoolExecutor(workers)
    done = [
        pool.submit(_in_a_process, _DRAW, *kinds, given=f"[{','.join(texts[place] for place in share)}]")
        for share in shares
        if share
    ]
    pool.shutdown(wait=False)

    def wait() -> list[list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for share, answer in zip(filter(None, shares), done, strict=True):
            files = [[base64.b64decode(text) for text in of_one] for of_one in json.loads(answer.result())]
            found |= zip(share, files, strict=True)
        return [found[place] for place in range(len(specs))]

    return wait


@functools.cache
def scripts_begun() -> Callable[[], str]:
    """Begin to make the script that gives a page ``vegaEmbed``: Vega, Vega-Lite and Vega-Embed in one; the function
    waits for it. It takes a second or more, so another process does it meanwhile."""
    pool = ThreadPoolExecutor(1)
    script = pool.submit(_in_a_process, _SCRIPT)
    pool.shutdown(wait=False)
    return script.result


# vl-convert does one thing at a time in a process, and lets no other thread run meanwhile.
_MOST_WORKERS = 4
_DRAW = """
import base64, json, sys
from embedcore.report.html.drawing import rendered
drawn = [[base64.b64encode(f).decode() for f in rendered(spec, sys.argv[1:])] for spec in json.load(sys.stdin)]
json.dump(drawn, sys.stdout)
"""
_SCRIPT = """
import sys, vl_convert
sys.stdout.buffer.write(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
"""


def _in_a_process(program: str, *arguments: str, given: str = "") -> str:
    """What a program of Python writes, for text that it is given."""
    # It finds what this process finds, wherever that came from.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, input=given.encode(), capture_output=True, env=environment)
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace"))[-300:]
        raise DrawingFailed(f"charts cannot be drawn: vl-convert ended with {done.returncode}: {said or 'no word'}")
    return done.stdout.decode()
