"""Where the plugin keeps its state on pytest's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from embedcore.plugin.collector import Collector
    from embedcore.plugin.options import Options
    from embedcore.plugin.session import BenchmarkSession
    from embedcore.results.result import Result

OPTIONS = pytest.StashKey["Options"]()
USAGE_ERROR = pytest.StashKey[str]()
SESSION = pytest.StashKey["BenchmarkSession"]()
RESULT = pytest.StashKey["Result"]()
COLLECTOR = pytest.StashKey["Collector"]()
