"""The fixtures that a benchmark case is made of; each also works in a test of the user's own without the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.errors import UsageError
from embedcore.interrupts import interrupts_held
from embedcore.plain import printable_lines
from embedcore.plugin.budget import BudgetSpent
from embedcore.plugin.replay import clock
from embedcore.plugin.stash import RESULTS, SESSION, TELLER, UNTIL_REPORTED
from embedcore.plugin.summary import budget_message
from embedcore.results.from_journal import benchmark_group
from embedcore.results.leaderboard import general_reason

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.results.result import Result

OF_SESSION = frozenset({"embed_images", "embed_measure"})
"""What a test asks for that needs the session's dataset."""


@pytest.fixture(scope="session")
def embed_images(pytestconfig: pytest.Config) -> Dataset:
    """The labelled images of this session (``--embed-dataset``), as an ``embedcore`` Dataset."""
    return pytestconfig.stash[SESSION].dataset


@pytest.fixture
def embed_measure(request: pytest.FixtureRequest) -> Callable[[str, Dataset], Result]:
    """Call it with a model tag and a dataset: measures the model under this session's settings, gives its result."""
    session = request.config.stash[SESSION]

    def measure(model: str, images: Dataset) -> Result:
        with request.config.stash[TELLER].telling(session.position(model, images)) as stages:
            try:
                result = session.measure(model, images, stages)
                # Journal, JSON and leaderboards then hold the same cases. pytest-benchmark fails over a benchmark
                # that was interrupted before its first round, and saves nothing.
                request.node.stash[UNTIL_REPORTED].enter_context(interrupts_held())
                session.books.keep(result, request.node.nodeid)
            except UsageError as error:  # an image or the cache folder: no other case could do better
                pytest.exit(printable_lines(str(error)), returncode=pytest.ExitCode.USAGE_ERROR)
            except BudgetSpent:
                pytest.exit(budget_message(session), returncode=pytest.ExitCode.INTERRUPTED)
        request.node.stash.setdefault(RESULTS, []).append(result)
        return result

    return measure


@pytest.fixture
def embed_replay(benchmark: Any) -> Callable[[Result], None]:
    """Call it with a result: saves it with pytest-benchmark, or skips or fails the test as its status says."""

    def replay(result: Result) -> None:
        explanation = f"{result.status}: {result.reason}"
        if result.outcome == "ok":
            benchmark.extra_info.update(result.extra_info())
            benchmark.group = benchmark_group(benchmark.group, result)
            clock.replay(benchmark, result.durations, result.batch_size or 1)
            return
        if result.outcome == "skip":
            # Without names, so that -rs folds equal ones into one line; the test's id has the name.
            general = general_reason(result).removeprefix("<model>: ")
            pytest.skip(f"{result.status}: {general}")
        pytest.fail(f"{explanation}\n{result.detail}".rstrip(), pytrace=False)

    return replay
