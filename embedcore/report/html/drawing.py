"""Vega-Lite charts as SVG, drawn by vl-convert without a browser, and the scripts that draw them in a page."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from embedcore.errors import EmbedcoreError
from embedcore.files import cache_folder, written_whole
from embedcore.plain import one_line

Spec = dict[str, Any]

# Marks take their colours from here, so that a page can choose others in dark mode.
CONFIG: Mapping[str, Any] = {
    "background": "white",
    "font": "Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#e6e6e6", "domainColor": "#888", "tickColor": "#888", "labelFontSize": 11},
    "axisY": {"labelLimit": 0},  # with a limit each label is measured several times, which takes most of the time
    "axisQuantitative": {"tickCount": 7},
    "title": {"anchor": "start", "fontSize": 15, "subtitleColor": "#555", "offset": 12},
    "text": {"color": "#222"},
    "rule": {"color": "#777"},
    "line": {"color": "#777"},
}
_MAKE_SCRIPTS = """
import sys, vl_convert
sys.stdout.buffer.write(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
"""


class DrawingFailed(EmbedcoreError):
    """The process that prepares the charts' scripts has failed."""


def svg(spec: Spec) -> bytes:
    """Draw a specification as an SVG file, without loading anything."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(spec, config=dict(CONFIG), allowed_base_urls=[])
    return drawn.encode()


@functools.cache
def start_scripts() -> Callable[[], str]:
    """Return a function that returns the script of Vega, Vega-Lite and Vega-Embed, which defines ``vegaEmbed``.

    Bundling takes seconds, so another process begins it here, and the user's cache folder keeps the bundle for each
    version of vl-convert. The function waits for it and raises DrawingFailed.
    """
    kept = kept_bundle()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = kept.read_text(encoding="utf-8")
        return lambda: known
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _MAKE_SCRIPTS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)

    @functools.cache
    def scripts() -> str:
        script, errors = process.communicate()
        if process.returncode:
            start_scripts.cache_clear()
            reason = one_line(errors.decode(errors="replace"))[-300:] or "no message"
            raise DrawingFailed(f"charts cannot be drawn: vl-convert ended with {process.returncode}: {reason}")
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(kept) as file:
                file.write(script)
        return script.decode()

    return scripts


def kept_bundle() -> Path:
    """Return the path of the bundled scripts in the user's cache folder."""
    return cache_folder(None) / f"vega-{metadata.version('vl-convert-python')}.js"
