"""The names under which the plugin keeps its state on objects of pytest and pytest-xdist."""

from __future__ import annotations

from typing import Any

import pytest

PLUGIN: pytest.StashKey[Any] = pytest.StashKey()
"""The `embedcore.plugin.plugin.Plugin` of a session that has tests of ours, on its configuration."""
OF_WORKERS = "embedcore"
"""Key in what pytest-xdist sends to a worker as it begins, and back as it ends."""
ON_REPORTS = "embedcore"
"""Attribute of test reports: ``lines`` of the record, and ``notes`` to show before the first case."""
