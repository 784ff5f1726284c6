"""Vega-Lite charts as SVG, drawn by vl-convert without a browser, and the scripts that draw them in a page."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from embedcore.errors import EmbedcoreError
from embedcore.files import written_whole
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
_DRAW = """
import json, sys, vl_convert
vl_convert.vegalite_to_svg({"data": {"values": []}, "mark": "point"}, allowed_base_urls=[])  # loads its libraries
specs, config = json.load(sys.stdin)
json.dump([vl_convert.vegalite_to_svg(spec, config=config, allowed_base_urls=[]) for spec in specs], sys.stdout)
"""
_MAKE_SCRIPTS = """
import sys, vl_convert
sys.stdout.buffer.write(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
"""


class DrawingFailed(EmbedcoreError):
    """The process that draws charts, or that prepares their scripts, has failed."""


def svg(spec: Spec) -> bytes:
    """Draw a specification as an SVG file, without loading anything."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(spec, config=dict(CONFIG), allowed_base_urls=[])
    return drawn.encode()


class Drawing:
    """A process that draws charts while this one goes on; vl-convert holds the interpreter's lock, and loads slowly."""

    def __init__(self) -> None:
        self._process = _started(_DRAW)
        self._pool = ThreadPoolExecutor(1)
        self._drawn: Future[tuple[bytes, bytes]] | None = None

    def begin(self, specs: Sequence[Spec]) -> None:
        """Begin to draw these specifications."""
        given = json.dumps([list(specs), dict(CONFIG)]).encode()
        self._drawn = self._pool.submit(self._process.communicate, given)

    def svgs(self) -> list[bytes]:
        """Wait for the charts, as SVG files in the order of `begin`. Raises DrawingFailed."""
        assert self._drawn is not None
        drawn, errors = self._drawn.result()
        if self._process.returncode:
            raise _failure(self._process.returncode, errors)
        return [text.encode() for text in json.loads(drawn)]

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *of_error: object) -> None:
        self._process.kill()  # also before it has drawn
        self._process.communicate()
        self._pool.shutdown()


def _started(code: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def _failure(code: int, errors: bytes) -> DrawingFailed:
    reason = one_line(errors.decode(errors="replace"))[-300:] or "no message"
    return DrawingFailed(f"charts cannot be drawn: vl-convert ended with {code}: {reason}")


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
    process = _started(_MAKE_SCRIPTS)

    @functools.cache
    def scripts() -> str:
        script, errors = process.communicate()
        if process.returncode:
            start_scripts.cache_clear()
            raise _failure(process.returncode, errors)
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(kept) as file:
                file.write(script)
        return script.decode()

    return scripts


def kept_bundle() -> Path:
    """Return the path of the bundled scripts in the user's cache folder."""
    import platformdirs

    return platformdirs.user_cache_path("embedcore") / f"vega-{metadata.version('vl-convert-python')}.js"
