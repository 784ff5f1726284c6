"""All errors of the package can be caught by a name that `embedcore` exports."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import embedcore


def exceptions(module):
    """Return the public exception classes that a module defines or imports, by name."""
    members = vars(module).items()
    return {
        name: value
        for name, value in members
        if inspect.isclass(value) and issubclass(value, BaseException) and not name.startswith("_")
    }


def test_every_public_exception_is_exported_or_below_an_exported_one():
    found = {}
    for info in pkgutil.walk_packages(embedcore.__path__, "embedcore."):
        found |= exceptions(importlib.import_module(info.name))
    ours = {name: value for name, value in found.items() if value.__module__.startswith("embedcore.")}
    exported = tuple(value for name, value in ours.items() if name in embedcore.__all__)
    assert {"DrawingFailed", "SideLost", "TraceFailed", "UsageError"} <= ours.keys()
    assert [name for name, value in ours.items() if not issubclass(value, exported)] == []
