"""Distribute the cases of a session over the workers of a cluster.

The session waits for one case at a time, in the order of its tests. Meanwhile each idle worker gets the next case, and
an outcome that arrives before it is asked for is kept. A case whose worker is lost is measured once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from embedcore.errors import EmbedcoreError, UsageError, option
from embedcore.interrupts import interrupts_held
from embedcore.measure.bench import Measured
from embedcore.measure.case import Case
from embedcore.measure.node_worker import Answer
from embedcore.measure.outcome import facts_of_case
from embedcore.plain import counted, differences
from embedcore.progress import Stages
from embedcore.results.merge import VERSIONS
from embedcore.results.process import TimingProcess
from embedcore.results.result import Result
from embedcore.results.run import machine_of

POLL_S = 0.5
"""Seconds between two progress messages."""
SEARCH_S = 10.0
"""Seconds between two searches for nodes that have joined."""
PATIENCE_S = 30.0
"""At the start, seconds to wait for further workers besides twice the time of the first one."""
MARGIN_S = 3600.0
"""Seconds that a call may take besides the time limit of its case: for the audit, the pixel store and downloads."""
ALONE_S = 300.0
"""Seconds without any worker after which the session ends."""

RESUME = f"continue with {option('resume', True)}"


class LostError(EmbedcoreError):
    """A worker is lost: its process or its node ended, or it does not answer."""


class Slot(NamedTuple):
    """Room for one worker: a card of a node, or a whole node."""

    node: str
    """The cluster's id of the node."""
    host: str
    cpus: float
    card: int | None = None
    """Number of the card; None without one."""


class Nodes(Protocol):
    """The nodes of a cluster. Workers and calls are opaque; calls are hashable. Raises ConnectionError."""

    def slots(self) -> Sequence[Slot]:
        """Return the slots of all nodes that are alive."""

    def start(self, slot: Slot) -> tuple[Any, Any]:
        """Start a worker; return it, and the call that ends when it is ready."""

    def call(self, worker: Any, method: str, *arguments: Any) -> Any:
        """Call a method of `embedcore.measure.node_worker.NodeWorker`; return at once."""

    def wait(self, calls: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Wait until one of the calls has ended, at most ``seconds``; return those that have."""

    def answer(self, call: Any) -> Answer:
        """Return the answer of a call that has ended. Raises LostError."""

    def stop(self, worker: Any) -> None:
        """Kill a worker, which may have ended."""

    def close(self) -> None:
        """Kill all workers, and leave the cluster."""


@dataclass(eq=False)
class Work:
    """A case to measure, or with ``timed`` a result to be timed once more."""

    case: Case
    test: str = ""
    """Id of its test; "" if its result need not be kept before it is asked for."""
    timed: Result | None = None
    lost: str = ""
    """How its first worker was lost; "" if it was not."""
    outcome: Measured | TimingProcess | UsageError | None = None
    """None until it is done."""


@dataclass(eq=False)
class _Worker:
    slot: Slot
    worker: Any
    call: Any
    """None if it is idle."""
    deadline: float
    """When it counts as lost, by ``time.monotonic``."""
    machine: str = ""
    """Its card or processor; "" until it is ready."""
    work: Work | None = None


class Cluster:
    """The workers of a session, and the work that they have not begun.

    ``queue``: in order. ``arrived(work, neighbours)`` is called when work is done, and ``warn(line)`` when a worker or
    a node is lost.
    """

    def __init__(self, nodes: Nodes, limit_s: float, expected: Mapping[str, Any]) -> None:
        """``limit_s``: time limit of a case; ``expected``: versions, and the fingerprint of the ``images``, that all
        nodes must have."""
        self.nodes = nodes
        self.queue: list[Work] = []
        self.facts: list[Mapping[str, Any]] = []
        """Facts of the machine of each worker that became ready, see `embedcore.plugin.machine`."""
        self.arrived: Callable[[Work, bytes], None] = lambda work, neighbours: None
        self.warn: Callable[[str], None] = lambda line: None
        self._limit_s, self._expected = limit_s, dict(expected)
        self._workers: dict[Slot, _Worker] = {}
        self._refused: dict[str, str] = {}
        """Nodes that cannot measure, and why."""
        self._next_search = 0.0

    def begin(self, stages: Stages) -> None:
        """Start a worker in each slot; wait until all are ready, at most twice the time of the first and `PATIENCE_S`.

        Raises UsageError if a node cannot measure, which it names, and if there is no node.
        """
        begin, first_s = time.monotonic(), float("inf")
        while time.monotonic() - begin < 2 * first_s + PATIENCE_S:
            stages("starting workers", len(self.facts), len(self._workers))
            self._advance()
            for why in self._refused.values():
                raise UsageError(why)
            if not self._workers:
                raise UsageError("the cluster has no node with a free processor or card")
            if self.facts:
                first_s = min(first_s, time.monotonic() - begin)
            if len(self.facts) == len(self._workers):
                return

    def outcome(self, work: Work, stages: Stages, limit_s: float) -> Measured | TimingProcess:
        """Wait until ``work`` is done and return its outcome; other work goes on meanwhile.

        ``limit_s``: the session's seconds left. Raises UsageError if the node's images or cache folder cannot be used,
        and if the cluster is lost.
        """
        last_seen = time.monotonic()
        while work.outcome is None:
            stages(f"waiting for {counted(len(self._workers), 'worker')}", 0, 0)
            try:
                self._advance(limit_s)
            except ConnectionError as error:
                raise UsageError(f"the cluster is lost: {error}; {RESUME}") from error
            machines = {worker.machine for worker in self._workers.values()}
            if machines:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > ALONE_S:
                raise UsageError(f"the cluster has no node left; {RESUME}")
            wanted = work.timed.processor if work.timed is not None else None
            if wanted and work in self.queue and not machines & {wanted, ""}:
                self.queue.remove(work)
                self._fail(work, f"no worker with {wanted} is left")
        if isinstance(work.outcome, UsageError):
            raise work.outcome
        return work.outcome

    def _advance(self, limit_s: float = float("inf")) -> None:
        """Start workers, give work to idle ones, and receive what arrives within half a second."""
        now = time.monotonic()
        if now >= self._next_search:
            self._next_search = now + SEARCH_S
            for slot in self.nodes.slots():
                if slot not in self._workers and slot.node not in self._refused:
                    self._workers[slot] = _Worker(slot, *self.nodes.start(slot), now + MARGIN_S)
        for worker in self._workers.values():
            if worker.call is None:
                self._give_work(worker, limit_s)
        of_call = {worker.call: worker for worker in self._workers.values() if worker.call is not None}
        for call in self.nodes.wait(list(of_call), POLL_S):
            with interrupts_held():  # between the answer and the journal
                self._receive(of_call[call])
        for worker in list(self._workers.values()):
            if worker.call is not None and time.monotonic() > worker.deadline:
                self._lose(worker, "no answer in time")

    def _give_work(self, worker: _Worker, limit_s: float) -> None:
        """Give an idle worker the first work that it can do: a case is timed again on the same kind of machine."""
        fitting = (w for w in self.queue if w.timed is None or w.timed.processor in (None, worker.machine))
        work = next(fitting, None)
        if work is None:
            return
        method, what = ("measure", work.case) if work.timed is None else ("time", work.timed)
        worker.call = self.nodes.call(worker.worker, method, what, limit_s)
        self.queue.remove(work)
        worker.work, worker.deadline = work, time.monotonic() + min(self._limit_s, limit_s) + MARGIN_S

    def _receive(self, worker: _Worker) -> None:
        """Take the answer of a worker: it is ready, or its work is done."""
        try:
            text, neighbours = self.nodes.answer(worker.call)
        except LostError as error:
            self._lose(worker, str(error))
            return
        answer, work = msgspec.json.decode(text), worker.work
        worker.call = worker.work = None
        if work is None:
            self._welcome(worker, answer)
            return
        if "error" in answer:
            work.outcome = UsageError(f"node {worker.slot.host}: {answer['error']}")
        elif "process" in answer:
            work.outcome = msgspec.convert(answer["process"], TimingProcess)
        else:
            result = Result.from_json(answer["result"] | {"processor": worker.machine, "node": worker.slot.host})
            work.outcome = Measured(result, answer["overhead_s"])
        self.arrived(work, neighbours)

    def _welcome(self, worker: _Worker, answer: Mapping[str, Any]) -> None:
        """Accept a worker that is ready, or refuse its node: for an error, other versions or other images."""
        facts = answer.get("facts", {})
        found = {**facts, **{name: answer.get(name) for name in ("embedcore", "images")}}
        unlike = differences(self._expected, {name: found.get(name) for name in self._expected})
        if why := answer.get("error") or "; ".join(unlike):
            self._refuse(worker, why)
            return
        worker.machine = machine_of(facts)
        self.facts.append(facts)
        self._expected |= {name: facts.get(name) for name in VERSIONS}

    def _lose(self, worker: _Worker, why: str) -> None:
        """Queue the work of a lost worker once more; a second loss is its result."""
        work = worker.work
        if work is None:
            self._refuse(worker, why)
            return
        self._stop(worker)
        for other in [other for other in self._workers.values() if other.call is None]:
            if other.slot.node == worker.slot.node:  # it may be lost too, which would not show before it gets work
                self._stop(other)
        self._next_search = 0.0
        why = f"node {worker.slot.host}: {why}"
        if work.lost:
            self._fail(work, f"its worker was lost twice: {work.lost}; {why}")
            return
        work.lost = why
        self.queue.insert(0, work)
        self.warn(f"{work.case.model}: begun again, since its worker was lost: {why}")

    def _fail(self, work: Work, reason: str) -> None:
        facts = {**facts_of_case(work.case), "dataset": self._expected.get("images")}
        work.outcome = Measured(Result.make(work.case.model, **facts, status="crashed", reason=reason), None)
        self.arrived(work, b"")

    def _refuse(self, worker: _Worker, why: str) -> None:
        self._stop(worker)
        self._refused[worker.slot.node] = f"node {worker.slot.host} cannot measure: {why}"
        self.warn(self._refused[worker.slot.node])

    def _stop(self, worker: _Worker) -> None:
        self.nodes.stop(worker.worker)
        del self._workers[worker.slot]
