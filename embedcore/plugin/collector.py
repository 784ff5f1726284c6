"""The results of the session, gathered from the reports of its tests, also those of pytest-xdist's workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embedcore.results.result import Result
from embedcore.results.run import embedcore_block

if TYPE_CHECKING:
    import pytest

    from embedcore.plugin.session import BenchmarkSession

_ATTRIBUTE = "embedcore"


def attach(report: pytest.TestReport, result: Result, session: BenchmarkSession) -> None:
    """Let a report carry a result; plain values on a report reach the controller of pytest-xdist with it."""
    carried = {"result": result.to_json(), "dataset": dict(session.dataset_block), "settings": dict(session.settings)}
    setattr(report, _ATTRIBUTE, carried)


class Collector:
    """A pytest plugin that keeps the result of each reported case, by model."""

    def __init__(self) -> None:
        self.results: dict[str, Result] = {}
        self.dataset: Mapping[str, Any] = {}
        self.settings: Mapping[str, Any] = {}
        self.saved = False
        """Whether our block went into a saved JSON."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        carried = getattr(report, _ATTRIBUTE, None)
        if carried is None:
            return
        result = Result.from_json(carried["result"])
        self.results[result.model] = result
        self.dataset, self.settings = carried["dataset"], carried["settings"]

    @property
    def measured(self) -> bool:
        """Whether any case has scores."""
        return any(result.ok for result in self.results.values())

    def json_block(self) -> dict[str, Any]:
        """The ``embedcore`` block of the saved JSON."""
        self.saved = True
        excluded = [result for result in self.results.values() if not result.ok]
        return embedcore_block(settings=self.settings, dataset=self.dataset, excluded=excluded)
