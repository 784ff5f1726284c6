"""Where the plugin keeps its state on pytest's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    pass

OPTIONS = pytest.StashKey["Options"]()
USAGE_ERROR = pytest.StashKey[str]()
SESSION = pytest.StashKey["BenchmarkSession"]()
RESULT = pytest.StashKey["Result"]()
COLLECTOR = pytest.StashKey["Collector"]()
