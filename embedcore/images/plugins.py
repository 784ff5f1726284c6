"""Formats that Pillow reads with another package only: known by name, read where the package is installed."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import NamedTuple


class Plugin(NamedTuple):
    """A package that teaches Pillow a format."""

    module: str
    package: str
    """As pip knows it."""
    function: str = ""
    """What registers it; "" where the import does."""


_HEIF = Plugin("pillow_heif", "pillow-heif", "register_heif_opener")
PLUGINS: Mapping[str, Plugin] = {
    ".heic": _HEIF,
    ".heif": _HEIF,
    ".hif": _HEIF,
    ".jxl": Plugin("pillow_jxl", "pillow-jxl-plugin"),
}
"""By the end of a file's name."""


@functools.cache
def installed() -> Mapping[str, Plugin]:
    """Those of PLUGINS that are there."""
    return {suffix: plugin for suffix, plugin in PLUGINS.items() if importlib.util.find_spec(plugin.module)}


@functools.cache
def register() -> None:
    """Have Pillow read the formats whose packages are installed; once in a process."""
    for plugin in set(installed().values()):
        module = importlib.import_module(plugin.module)
        if plugin.function:
            getattr(module, plugin.function)()


@functools.cache
def versions() -> str:
    """Names and versions of the packages that are used, since what they decode may change with them; "" for none."""
    packages = sorted({plugin.package for plugin in installed().values()})
    return "".join(f" {package} {importlib.metadata.version(package)}" for package in packages)
