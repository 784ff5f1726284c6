"""Where the plugin keeps its state on pytest's own objects."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from embedcore.compare.comparison import Comparison
    from embedcore.compare.verdict import Verdict
    from embedcore.plugin.budget import Budget
    from embedcore.plugin.collector import Collector
    from embedcore.plugin.gate import Gate
    from embedcore.plugin.options import Options
    from embedcore.plugin.progress import Teller
    from embedcore.plugin.session import BenchmarkSession
    from embedcore.results.result import Result
    from embedcore.zoo.own_models import OwnModel

OF_WORKERS = "embedcore"
"""Our key in what pytest-xdist takes to its workers and back."""
ON_REPORTS = "embedcore"
"""The attribute of pytest's reports that carries results."""

# On the configuration of the session:
OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
OWN: pytest.StashKey[dict[str, OwnModel]] = pytest.StashKey()
OF_PYTEST: pytest.StashKey[pytest.Session] = pytest.StashKey()
BUDGET: pytest.StashKey[Budget] = pytest.StashKey()
COLLECTOR: pytest.StashKey[Collector] = pytest.StashKey()
TELLER: pytest.StashKey[Teller] = pytest.StashKey()
SESSION: pytest.StashKey[BenchmarkSession] = pytest.StashKey()
SLOTS: pytest.StashKey[dict[str, int]] = pytest.StashKey()
"""Number of each running worker of pytest-xdist, by its id: the lowest that was free."""
FIRST_TO_TELL: pytest.StashKey[str] = pytest.StashKey()
"""Id of the worker that tells what all workers know."""
STOPPED: pytest.StashKey[tuple[str, int]] = pytest.StashKey()
"""Why the workers of pytest-xdist could not begin, and the exit code."""
UNWRITTEN: pytest.StashKey[list[str]] = pytest.StashKey()
EMPTY_SHARD: pytest.StashKey[str] = pytest.StashKey()
"""What to say of a shard that has no case."""
COLLECTED: pytest.StashKey[int] = pytest.StashKey()
"""How many cases there were before any was deselected."""
USAGE_ERROR: pytest.StashKey[str] = pytest.StashKey()
GATE: pytest.StashKey[Gate] = pytest.StashKey()
VERDICT: pytest.StashKey[tuple[Comparison, Verdict]] = pytest.StashKey()
# On the test of a case:
RESULTS: pytest.StashKey[list[Result]] = pytest.StashKey()
UNTIL_REPORTED: pytest.StashKey[ExitStack] = pytest.StashKey()
