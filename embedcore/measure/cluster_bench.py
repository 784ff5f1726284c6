"""A bench whose cases are measured on the nodes of a cluster, and the worker on a node."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.files import written_whole
from embedcore.forkserver import forkserver_context, start_surely
from embedcore.images.dataset import Dataset
from embedcore.measure.bench import Bench, Measured
from embedcore.measure.case import Case, CaseSettings
from embedcore.measure.cluster import Answer, Cluster, Nodes, Work
from embedcore.plain import json_safe
from embedcore.progress import Stages
from embedcore.results import neighbours
from embedcore.results.neighbours import NeighbourStore
from embedcore.results.process import TimingProcess
from embedcore.results.record import Record
from embedcore.results.result import Result
from embedcore.version import VERSION


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
        """``nodes()`` connects to the cluster; ``expected``: versions that its nodes must have; ``options``: as of
        `Bench`."""
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
        """Return the outcome of the expected work that is equal to the one asked for; else of that, as the next one."""
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


class Site(NamedTuple):
    """What a worker measures with: a bench of this machine, the images, and the facts of the machine."""

    bench: Bench
    dataset: Dataset
    facts: Mapping[str, Any]


class NodeWorker:
    """A worker on a node. It has a forkserver, and measures each case in a fresh child, as a session does."""

    def begin(self, folder: str, setup: bytes) -> Answer:
        """Make the `Site` with ``setup``, a pickled function, in the session's ``folder`` if this machine has it.

        The answer has the facts of the machine, the version of embedcore and the fingerprint of the images.
        """
        if Path(folder).is_dir():
            os.chdir(folder)  # relative paths are relative to it
        start_surely(forkserver_context)  # it imports torch and timm while this process does
        try:
            self._site: Site = pickle.loads(setup)()
        except EmbedcoreError as error:
            return _answer(error=str(error))
        bench, dataset, facts = self._site
        bench.neighbours = NeighbourStore(bench.cache / neighbours.FOLDER, f"worker-{os.getpid()}")
        return _answer(facts=facts, embedcore=VERSION, images=dataset.fingerprint)

    def measure(self, case: Case, limit_s: float) -> Answer:
        """Measure a case within ``limit_s`` seconds; the answer has its result."""
        bench, dataset, _ = self._site
        assert bench.neighbours is not None
        try:
            result, overhead_s = bench.run(case, dataset, limit_s=limit_s)
        except UsageError as error:
            return _answer(error=str(error))
        path = bench.neighbours.path(neighbours.key(result, dataset.fingerprint))
        found = path.read_bytes() if path.is_file() else b""
        path.unlink(missing_ok=True)  # the session keeps them
        return _answer(found, result=result.to_json(), overhead_s=overhead_s)

    def time(self, result: Result, limit_s: float) -> Answer:
        """Time the case of a result once more; the answer has a timing process, or a result that says what failed."""
        bench, dataset, _ = self._site
        try:
            timed = bench.time(result, dataset, limit_s=limit_s)
        except UsageError as error:
            return _answer(error=str(error))
        if isinstance(timed, TimingProcess):
            return _answer(process=msgspec.to_builtins(timed))
        return _answer(result=timed.to_json(), overhead_s=None)


def _answer(neighbours: bytes = b"", /, **values: Any) -> Answer:
    return msgspec.json.encode(json_safe(values)), neighbours
