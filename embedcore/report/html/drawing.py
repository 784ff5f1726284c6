"""Vega-Lite charts as SVG, drawn by vl-convert without a browser, and the scripts that draw them in a page."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from embedcore.errors import EmbedcoreError
from embedcore.files import cache_folder, written_whole
from embedcore.plain import one_line

Spec = dict[str, Any]
Draw: TypeAlias = Callable[[Mapping[str, Spec]], Future[dict[str, bytes]]]

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
# The first drawing starts the JavaScript engine, which takes longer than most charts.
_DRAW = """
import json, sys, vl_convert
vl_convert.vegalite_to_svg({"data": {"values": []}, "mark": "point"}, allowed_base_urls=[])
specs, config = json.load(sys.stdin)
draw = vl_convert.vegalite_to_svg
json.dump({name: draw(spec, config=config, allowed_base_urls=[]) for name, spec in specs.items()}, sys.stdout)
"""


class DrawingFailed(EmbedcoreError):
    """A process that draws charts, or prepares their scripts, has failed."""


@contextlib.contextmanager
def drawing_process() -> Iterator[Draw]:
    """Start a process that draws specifications as SVG files while this one goes on.

    Yields a function to be called once, with specifications by name. The future that it returns has the files by the
    same names, or raises DrawingFailed.
    """
    with _python(_DRAW) as process, ThreadPoolExecutor(1) as pool:

        def draw(specs: Mapping[str, Spec]) -> Future[dict[str, bytes]]:
            return pool.submit(finish, json.dumps([specs, CONFIG]).encode())

        def finish(sent: bytes) -> dict[str, bytes]:
            return {name: drawn.encode() for name, drawn in json.loads(_finished(process, sent)).items()}

        try:
            yield draw
        finally:
            process.kill()


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
    process = _python(_MAKE_SCRIPTS)

    @functools.cache
    def scripts() -> str:
        try:
            script = _finished(process)
        except DrawingFailed:
            start_scripts.cache_clear()
            raise
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(kept) as file:
                file.write(script)
        return script.decode()

    return scripts


def kept_bundle() -> Path:
    """Return the path of the bundled scripts in the user's cache folder."""
    return cache_folder(None) / f"vega-{metadata.version('vl-convert-python')}.js"


def _python(code: str) -> subprocess.Popen[bytes]:
    """Start a process that runs this code, with the packages of this one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def _finished(process: subprocess.Popen[bytes], sent: bytes = b"") -> bytes:
    """Send input to a process, wait for its end and return its output. Raises DrawingFailed."""
    output, errors = process.communicate(sent)
    if process.returncode:
        reason = one_line(errors.decode(errors="replace"))[-300:] or "no message"
        raise DrawingFailed(f"charts cannot be drawn: vl-convert ended with {process.returncode}: {reason}")
    return output
