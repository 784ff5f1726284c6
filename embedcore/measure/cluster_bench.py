"""A bench whose cases are measured on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedcore.errors import UsageError
from embedcore.files import written_whole
from embedcore.images.dataset import Dataset
from embedcore.measure.bench import Bench, Measured
from embedcore.measure.case import Case, CaseSettings
from embedcore.measure.cluster import Cluster, Nodes, Work
from embedcore.progress import Stages
from embedcore.results import neighbours
from embedcore.results.process import TimingProcess
from embedcore.results.record import Record
from embedcore.results.result import Result


class ClusterBench(Bench):
    """A bench on the nodes of a cluster, each of which has the images and a cache folder of its own, or shares them.

    Pixels stay on the nodes; results and the neighbours of the queries come to the session.
    """

    def __init__(
        self,
        settings: CaseSettings,
        *,
        nodes: Callable[[], Nodes],
        expected: Mapping[str, Any],
        **options: Any,
    ) -> None:
        """``nodes()`` connects to the cluster; ``expected``: versions that its nodes must have; ``options``: those
        of `Bench`."""
        super().__init__(settings, **options)
        self._nodes, self._expected = nodes, expected
        self._cluster: Cluster | None = None
        self._coming: list[Work] = []
        """Expected and not yet asked for."""
        self._record = Record()
        self._images = ""

    def connect(self, dataset: Dataset, stages: Stages) -> Sequence[Mapping[str, Any]]:
        self._images = dataset.fingerprint
        expected = {**self._expected, "images": self._images}
        self._cluster = Cluster(self._nodes(), self.timeout_s, expected)
        self._cluster.begin(stages)
        return self._cluster.facts

    def expect(self, coming: Mapping[str, str | Result], record: Record) -> None:
        assert self._cluster is not None
        self._record, record.parallel = record, len(self._cluster.facts)
        self._cluster.arrived, self._cluster.warn = self._arrived, record.warnings.append
        for name, what in coming.items():
            timed = what if isinstance(what, Result) else None
            work = Work(self.case(name if timed else str(what)), "" if timed else name, timed)
            self._coming.append(work)
            self._cluster.queue.append(work)

    def run(
        self,
        case: Case,
        dataset: Dataset,
        stages: Stages | None = None,
        *,
        limit_s: float = float("inf"),
        following: Case | None = None,
    ) -> Measured:
        outcome = self._outcome(Work(case), dataset, stages, limit_s)
        assert isinstance(outcome, Measured)
        return outcome

    def time(
        self, result: Result, dataset: Dataset, stages: Stages | None = None, *, limit_s: float = float("inf")
    ) -> TimingProcess | Result:
        outcome = self._outcome(Work(self.case(result.model), timed=result), dataset, stages, limit_s)
        return outcome.result if isinstance(outcome, Measured) else outcome

    def disconnect(self) -> None:
        if self._cluster is not None:
            self._cluster.nodes.close()
            self._cluster = None

    def _outcome(
        self, asked: Work, dataset: Dataset, stages: Stages | None, limit_s: float
    ) -> Measured | TimingProcess:
        """Return the outcome of the expected work that equals ``asked``; without any, ``asked`` is the next work."""
        if self._cluster is None or dataset.fingerprint != self._images:
            raise UsageError(f"{dataset.name}: the nodes of a cluster have only the images of --embed-dataset")
        same = (work for work in self._coming if work.timed is asked.timed and work.case == asked.case)
        work = next(same, None)
        if work is None:
            work = asked
            self._cluster.queue.insert(0, work)
        else:
            self._coming.remove(work)
        return self._cluster.outcome(work, stages or (lambda stage, done, total: None), limit_s)

    def _arrived(self, work: Work, found: bytes) -> None:
        """Write the neighbours, and the result of an expected case to the journal."""
        if not isinstance(work.outcome, Measured) or work.timed is not None:
            return
        result, overhead_s = work.outcome
        if found and self.neighbours is not None:
            path = self.neighbours.path(neighbours.key(result, self._images))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(path) as file:
                    file.write(found)
            except OSError as error:
                self._record.warnings.append(f"{result.model}: its neighbours could not be kept: {error}")
        if work.test:
            self._record.keep_early(result, work.test, overhead_s)
