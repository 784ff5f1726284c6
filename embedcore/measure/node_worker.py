"""The worker of a session on a node of a cluster.

torch is imported only when it begins, in the environment that its measuring processes get.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.forkserver import forkserver_context, start_surely
from embedcore.plain import json_safe
from embedcore.results import neighbours
from embedcore.results.neighbours import NeighbourStore
from embedcore.results.process import TimingProcess
from embedcore.results.result import Result
from embedcore.version import VERSION

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.measure.bench import Bench
    from embedcore.measure.case import Case

Answer = tuple[bytes, bytes]
"""A JSON object, and the file of the neighbours that the case found, or b""."""


class Site(NamedTuple):
    """What a worker measures with: a bench of its machine, the images, and the facts of the machine."""

    bench: Bench
    dataset: Dataset
    facts: Mapping[str, Any]


class NodeWorker:
    """Has a forkserver and measures each case in a fresh child, as a session does."""

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


class RayWorker(NodeWorker):
    """A worker that is an actor of Ray."""

    def begin(self, folder: str, setup: bytes) -> Answer:
        if b"\0OMP_NUM_THREADS=" not in b"\0" + Path("/proc/self/environ").read_bytes():
            os.environ.pop("OMP_NUM_THREADS", None)  # set by Ray, to the number of logical processors
        return super().begin(folder, setup)


def _answer(neighbours: bytes = b"", /, **values: Any) -> Answer:
    return msgspec.json.encode(json_safe(values)), neighbours
