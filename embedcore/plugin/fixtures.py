"""The fixtures of a benchmark case; each also works without the others, in a test of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from embedcore.plugin.replay import clock
from embedcore.plugin.stash import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedcore.images.dataset import Dataset
    from embedcore.plugin.plugin import Plugin
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
    """The model of this test: a timm tag or the name of an own model; the test runs once for each model."""
    model: str = request.param
    return model


@pytest.fixture(scope="session")
def embed_images(pytestconfig: pytest.Config, _embed_of_session: None) -> Dataset:
    """The labelled images of this session (``--embed-dataset``), as an ``embedcore`` Dataset."""
    measuring = _started(pytestconfig).measuring
    assert measuring is not None
    return measuring.dataset


@pytest.fixture
def embed_measure(request: pytest.FixtureRequest, _embed_of_session: None) -> Callable[[str, Dataset], Result]:
    """A function (model tag, dataset) → result that measures the model under this session's settings."""
    plugin = _started(request.config)

    def measure(model: str, images: Dataset) -> Result:
        return plugin.measure(model, images, request.node.nodeid)

    return measure


def _started(config: pytest.Config) -> Plugin:
    plugin: Plugin | None = config.stash.get(PLUGIN, None)
    if plugin is None or plugin.measuring is None:  # requested with getfixturevalue, after collection
        raise pytest.UsageError("embed_images and embed_measure must be arguments of the test or of its fixtures")
    return plugin


@pytest.fixture
def embed_replay(benchmark: Any, _embed_of_replay: None) -> Callable[[Result], None]:
    """A function that takes a result, and saves it with pytest-benchmark, or skips or fails the test by its status."""
    from embedcore.results.leaderboard import general_reason
    from embedcore.results.saved import benchmark_group

    def replay(result: Result) -> None:
        if result.outcome == "ok":
            benchmark.extra_info.update(result.extra_info())
            benchmark.group = benchmark_group(benchmark.group, result)
            clock.replay(benchmark, result.durations, result.batch_size or 1)
            return
        if result.outcome == "skip":
            # Without names, so that -rs folds equal reasons into one line; the test's id has the name.
            general = general_reason(result).removeprefix("<model>: ")
            pytest.skip(f"{result.status}: {general}")
        pytest.fail(f"{result.status}: {result.reason}\n{result.detail}".rstrip(), pytrace=False)

    return replay
