"""The nodes of a Ray cluster: a worker on each card or, without cards, on each node."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedcore.errors import UsageError
from embedcore.measure.cluster import LostError, Slot
from embedcore.measure.node_worker import Answer, RayWorker
from embedcore.plain import one_line

CONNECT_S = 10.0
"""Time limit of a first connection; Ray's own retries take minutes."""
ANSWER_S = 60.0
"""Time limit to fetch the answer of a call that has ended."""

# Ray has changed the default of the first one: without it, a worker without a card would see all cards of its node.
_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def check_ray() -> None:
    """Raise UsageError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--embed-executor ray needs ray: pip install 'embedcore[ray]'")


class RayNodes:
    """See `embedcore.measure.cluster.Nodes`."""

    def __init__(self, address: str, setup: bytes, *, cards: bool) -> None:
        """Connect to the cluster.

        ``address``: such as ``ray://host:10001``; "" for RAY_ADDRESS, a cluster on this machine, or else a new one.
        ``setup``: see `NodeWorker.begin`. ``cards``: whether the workers use cards, if the cluster has any. Raises
        UsageError.
        """
        where = address or os.environ.get("RAY_ADDRESS", "")
        _check_reachable(where)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a new cluster
        self._ray: Any = importlib.import_module("ray")
        self._strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
        self._setup, self._cards = setup, cards
        self._workers: list[Any] = []
        self._connected = not self._ray.is_initialized()
        if self._connected:
            terminate = signal.getsignal(signal.SIGTERM)
            try:
                self._ray.init(address or None, configure_logging=False, log_to_driver=False)
            except (OSError, RuntimeError, ValueError, ImportError) as error:
                raise UsageError(f"no Ray cluster {where or 'on this machine'}: {one_line(str(error))}") from error
            with contextlib.suppress(ValueError):  # outside the main thread, where Ray sets none
                signal.signal(signal.SIGTERM, terminate)  # Ray's would raise SystemExit, which fails only one test
        self._actor = self._ray.remote(RayWorker)

    def slots(self) -> Sequence[Slot]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        of_cards = [slot for node in nodes for slot in _cards_of(node)] if self._cards else []
        return of_cards or [
            Slot(node["NodeID"], _host(node), cpus)
            for node in nodes
            if (cpus := node["Resources"].get("CPU", 0.0)) >= 1
        ]

    def start(self, slot: Slot) -> tuple[Any, Any]:
        worker = self._actor.options(
            num_cpus=slot.cpus,
            num_gpus=int(slot.card is not None),
            max_restarts=0,  # with restarts, calls to a worker that has died can hang (issue 15045 of Ray)
            max_task_retries=0,
            scheduling_strategy=self._strategies.NodeAffinitySchedulingStrategy(slot.node, soft=False),
            runtime_env={"env_vars": _ENVIRONMENT},
        ).remote()
        self._workers.append(worker)
        return worker, worker.begin.remote(str(Path.cwd()), self._setup)

    def call(self, worker: Any, method: str, *arguments: Any) -> Any:
        return getattr(worker, method).remote(*arguments)

    def wait(self, calls: Sequence[Any], seconds: float) -> Sequence[Any]:
        if not calls:
            time.sleep(seconds)
            return ()
        ended: Sequence[Any] = self._ray.wait(list(calls), timeout=seconds)[0]
        return ended

    def answer(self, call: Any) -> Answer:
        try:
            answer: Answer = self._ray.get(call, timeout=ANSWER_S)
        except self._ray.exceptions.RayError as error:
            raise LostError(_reason(error)) from error
        return answer

    def stop(self, worker: Any) -> None:
        self._ray.kill(worker, no_restart=True)
        self._workers.remove(worker)

    def close(self) -> None:
        with contextlib.suppress(ConnectionError):  # a cluster that is lost
            for worker in list(self._workers):
                self.stop(worker)
            if self._connected:
                self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise UsageError if nothing listens at ``ray://HOST:PORT`` or ``HOST:PORT``."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"Ray's address {address!r}: {error}") from error
    if host is None or port is None:  # such as "auto" and "local"
        return
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise UsageError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


def _cards_of(node: dict[str, Any]) -> list[Slot]:
    cards = int(node["Resources"].get("GPU", 0))
    share = node["Resources"].get("CPU", 0.0) // max(cards, 1)
    return [Slot(node["NodeID"], _host(node), share, card) for card in range(cards)]


def _host(node: dict[str, Any]) -> str:
    """Return the name that the node was started with, else that of its host."""
    name, address = node.get("NodeName"), node["NodeManagerAddress"]
    return str(name if name and name != address else node.get("NodeManagerHostname") or address)


def _reason(error: Exception) -> str:
    """Return the last line of Ray's message, which has the cause."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {one_line(lines[-1] if lines else '')[:200]}"
