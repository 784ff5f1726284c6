"""The fixtures that a benchmark case is made of; each also works in a test of the user's own without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from embedcore.plugin.stash import RESULTS, SESSION, TELLER, UNTIL_REPORTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedcore.images.dataset import Dataset
    from embedcore.plugin.session import BenchmarkSession
    from embedcore.results.result import Result


@pytest.fixture
def _embed_of_case() -> None:
    """See `embedcore.plugin.cases.OF_CASE`."""


@pytest.fixture(scope="session")
def _embed_of_session() -> None:
    """See `embedcore.plugin.cases.OF_SESSION`."""


@pytest.fixture
def _embed_of_replay() -> None:
    """See `embedcore.plugin.cases.OF_REPLAY`."""


@pytest.fixture
def embed_model(request: pytest.FixtureRequest, _embed_of_case: None) -> str:
    """The model of this test: a tag of timm, or the name of an own model; a test that has it runs for each model."""
    model: str = request.param
    return model


@pytest.fixture(scope="session")
def embed_images(pytestconfig: pytest.Config, _embed_of_session: None) -> Dataset:
    """The labelled images of this session (``--embed-dataset``), as an ``embedcore`` Dataset."""
    return _session(pytestconfig).dataset


@pytest.fixture
def embed_measure(request: pytest.FixtureRequest, _embed_of_session: None) -> Callable[[str, Dataset], Result]:
    """Call it with a model tag and a dataset: measures the model under this session's settings, gives its result."""
    from embedcore.errors import UsageError
    from embedcore.interrupts import interrupts_held
    from embedcore.plain import printable_lines
    from embedcore.plugin.budget import BudgetSpent
    from embedcore.plugin.summary import budget_message
    from embedcore.plugin.workers import end_in_test

    session = _session(request.config)

    def measure(model: str, images: Dataset) -> Result:
        with request.config.stash[TELLER].telling(session.position(model, images)) as stages:
            try:
                request.node.stash[UNTIL_REPORTED].close()  # of this test's last run, where it runs again
                result = session.measure(model, images, stages, request.node.nodeid)
                # Journal, JSON and leaderboards then hold the same cases. pytest-benchmark fails over a benchmark
                # that was interrupted before its first round, and saves nothing.
                request.node.stash[UNTIL_REPORTED].enter_context(interrupts_held())
                session.books.keep(result, request.node.nodeid)
            except UsageError as error:  # an image or the cache folder: no other case could do better
                end_in_test(request.session, printable_lines(str(error)), pytest.ExitCode.USAGE_ERROR)
            except BudgetSpent:
                end_in_test(request.session, budget_message(session), pytest.ExitCode.INTERRUPTED)
        request.node.stash.setdefault(RESULTS, []).append(result)
        return result

    return measure


def _session(config: pytest.Config) -> BenchmarkSession:
    if SESSION not in config.stash:  # asked for with getfixturevalue: it is not known in time that it is needed
        raise pytest.UsageError("embed_images and embed_measure have to be arguments of the test or of its fixtures")
    return config.stash[SESSION]


@pytest.fixture
def embed_replay(benchmark: Any, _embed_of_replay: None) -> Callable[[Result], None]:
    """Call it with a result: saves it with pytest-benchmark, or skips or fails the test as its status says."""
    from embedcore.plugin.replay import clock
    from embedcore.results.from_journal import benchmark_group
    from embedcore.results.leaderboard import general_reason

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
