"""Image formats that Pillow reads only with an additional package."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import NamedTuple


class Plugin(NamedTuple):
    """A package that adds a format to Pillow."""

    module: str
    package: str
    """Name on PyPI."""
    function: str = ""
    """Function that registers the format; "" if the import does."""


_HEIF = Plugin("pillow_heif", "pillow-heif", "register_heif_opener")
PLUGINS: Mapping[str, Plugin] = {
    ".heic": _HEIF,
    ".heif": _HEIF,
    ".hif": _HEIF,
    ".jxl": Plugin("pillow_jxl", "pillow-jxl-plugin"),
}
"""By file name extension."""


@functools.cache
def installed() -> Mapping[str, Plugin]:
    """Return those of PLUGINS that are installed."""
    return {suffix: plugin for suffix, plugin in PLUGINS.items() if importlib.util.find_spec(plugin.module)}


@functools.cache
def register() -> None:
    """Register the installed formats with Pillow, once per process."""
    for plugin in set(installed().values()):
        module = importlib.import_module(plugin.module)
        if plugin.function:
            getattr(module, plugin.function)()


@functools.cache
def versions() -> str:
    """Return names and versions of the installed packages, with which pixels may change; "" for none."""
    packages = sorted({plugin.package for plugin in installed().values()})
    return "".join(f" {package} {importlib.metadata.version(package)}" for package in packages)
