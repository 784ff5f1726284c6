"""The results of the session, gathered from the reports of its tests, also those of pytest-xdist's workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from embedcore.plain import json_safe
from embedcore.plugin.stash import ON_REPORTS
from embedcore.results.estimate import costs_left, estimate_range, measured_costs
from embedcore.results.ranking import Rankings, rank_if_possible, ranking_block
from embedcore.results.result import Result
from embedcore.results.run import embedcore_block

if TYPE_CHECKING:
    import pytest

    from embedcore.plugin.session import BenchmarkSession


class Collector:
    """A pytest plugin that keeps the results of reported cases, by model and dataset."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, str | None], Result] = {}
        self.measured: list[tuple[str, Result]] = []
        """Test and result of each measurement, in the order reported: a case that was measured twice is here twice."""
        self.datasets: dict[str, Mapping[str, Any]] = {}
        """The ``dataset`` block of each dataset, by fingerprint; that of the session first."""
        self.settings: Mapping[str, Any] = {}
        self.machine: Mapping[str, Any] = {}
        self.cases: dict[str, tuple[str, float | None]] = {}
        """The tests of the session that measure a model, whether or not it comes to them: id to model and GMACs, if
        those are known."""
        self.reached: set[str] = set()
        """Those that have reported a result."""
        self.to_fetch: frozenset[str] = frozenset()
        """Those whose weights were not here as it began."""
        self.renamed: dict[str, str] = {}
        """Timm's retired names for them."""
        self.when: str | None = None
        """When the last of the results was reported, as the saved JSON has its ``datetime``."""
        self.run = ""
        """The name of the run in the cache folder."""
        self.noise: float | None = None
        """What `ab --aa` has found for this machine."""
        self.notices: list[str] = []
        """Lines that the summary has to show."""
        self.saved = False
        """Whether our block went into a saved JSON."""
        self.to_be_told: list[str] = []
        """What is to be said before the first case; of a worker of pytest-xdist, whose controller says it."""
        self._told: set[str] = set()
        self._workers: set[str] = set()
        """Those of pytest-xdist that have reported a result."""
        self._rankings: dict[str, tuple[list[Result], Rankings]] = {}

    def attach(self, report: pytest.TestReport, results: list[Result], session: BenchmarkSession) -> None:
        """Let a report carry results; plain values on a report reach the controller of pytest-xdist with it.

        What holds for all results goes with the first report only, that of a setup: names of classes may be many.
        """
        new = {key: dict(block) for key, block in session.blocks.items() if key not in self._told}
        if not (new or results):
            return
        carried: dict[str, Any] = {"results": [result.to_json() for result in results], "notes": self.to_be_told}
        self.to_be_told = []
        if new:
            from embedcore.zoo.registry import renamed_to

            carried |= {"datasets": new, "settings": dict(session.settings), "machine": dict(session.machine)}
            carried |= {"cases": session.costs(), "renamed": renamed_to(session.models), "noise": session.noise}
            carried |= {"run": session.books.run, "to_fetch": sorted(session.to_fetch)}
        self._told.update(new)
        setattr(report, ON_REPORTS, json_safe(carried))  # pytest-xdist takes nothing but plain values

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        carried = getattr(report, ON_REPORTS, None)
        if carried is None:
            return
        for fields in carried.get("results", ()):
            result = Result.from_json(fields)
            self.results[result.model, result.dataset] = result
            self.reached.add(report.nodeid)
            if result.ok:
                self.measured.append((report.nodeid, result))
            self._workers.add(getattr(report, "worker_id", ""))
            self.when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if "datasets" in carried:
            self.datasets = {**self.datasets, **carried["datasets"]}
            self.settings, self.machine = carried["settings"], carried["machine"]
            self.cases |= {test: (model, gmacs) for test, (model, gmacs) in carried["cases"].items()}
            self.renamed |= carried["renamed"]
            self.noise, self.run = carried["noise"], carried["run"]
            self.to_fetch |= set(carried["to_fetch"])

    def notice(self, lines: Sequence[str]) -> None:
        """Note lines for the summary, each once, whichever worker has them."""
        self.notices = list(dict.fromkeys([*self.notices, *lines]))

    def results_on(self, fingerprint: str) -> list[Result]:
        """All that was reported on a dataset, measured or not."""
        return [result for (_, dataset), result in self.results.items() if dataset == fingerprint]

    def remaining(self) -> tuple[int, tuple[float, float] | None]:
        """How many cases have not reported, and the least and most seconds that the workers may take for them."""
        left = [case for test, case in self.cases.items() if test not in self.reached]
        costs = costs_left(left, list(self.results.values()), self.to_fetch)
        found = estimate_range(measured_costs(self.results.values(), dict(self.cases.values()).get), costs)
        workers = len(self._workers)
        return len(left), None if found is None else (found[0] / workers, found[1] / workers)

    def unreached(self) -> list[str]:
        """The models of the tests that have reported no result, each once."""
        return list(dict.fromkeys(model for test, (model, _) in self.cases.items() if test not in self.reached))

    def rankings(self) -> dict[str, Rankings]:
        """How sure the ranks are, on each dataset by its fingerprint; worked out anew only where a result is new."""
        for fingerprint, block in self.datasets.items():
            measured = [result for result in self.results_on(fingerprint) if result.ok]
            if fingerprint not in self._rankings or self._rankings[fingerprint][0] != measured:
                self._rankings[fingerprint] = measured, rank_if_possible(measured, block)
        return {fingerprint: self._rankings[fingerprint][1] for fingerprint in self.datasets}

    def json_block(self, selection: Mapping[str, Any]) -> dict[str, Any]:
        """The ``embedcore`` block of the saved JSON; `selection` is what narrowed the cases."""
        self.saved = True
        excluded = [result for result in self.results.values() if not result.ok]
        block = embedcore_block(settings=self.settings, datasets=list(self.datasets.values()), excluded=excluded)
        return block | {
            "selection": dict(selection),
            "unreached": self.unreached(),
            "renamed": self.renamed,
            "noise": self.noise,
            "ranking": ranking_block(self.rankings()),
        }
