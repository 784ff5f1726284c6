"""Timing of the forward pass alone."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from embedcore.embed.contention import contention, steal, stolen_ticks, waiting_times
from embedcore.embed.interleaving import Interleaving
from embedcore.embed.reference import ReferenceSeconds
from embedcore.progress import Progress

FEWEST_WARMUPS, MOST_WARMUPS = 2, 20
AGREEMENT = 0.05
LATENCY_S = 5.0

Embed = Callable[[torch.Tensor], torch.Tensor]


def warm_up(seconds: Callable[[], float]) -> int:
    """Run rounds until two successive ones differ by at most 5 % of the longer, 2 to 20; return their number.

    ``seconds()`` runs a round and returns its duration.
    """
    last = seconds()
    for rounds in range(FEWEST_WARMUPS, MOST_WARMUPS + 1):
        now = seconds()
        if abs(now - last) <= AGREEMENT * max(now, last):
            return rounds
        last = now
    return MOST_WARMUPS


class Timed(NamedTuple):
    """Seconds of each round, the number of warm-up rounds before them, and their :func:`contention`.

    ``reference``: seconds of the reference kernel after each round, empty without one; ``stolen``: see :func:`steal`.
    """

    durations: list[float]
    warmups: int
    contention: float | None
    reference: list[ReferenceSeconds]
    stolen: float | None = None


def time_forward(
    embed: Embed,
    batch: torch.Tensor,
    rounds: int = 10,
    interleaving: Interleaving | None = None,
    progress: Progress = lambda done, total: None,
    warmed: Callable[[], None] = lambda: None,
    reference: Callable[[], ReferenceSeconds] | None = None,
) -> Timed:
    """Time ``rounds`` forward passes of ``batch`` [b, 3, h, w], after a warm-up, in the caller's autocast context.

    On CUDA the device's events measure the time, and contention of the processor is unknown; elsewhere a monotonic
    clock of the host. With ``interleaving`` the rounds of another process alternate with these. ``progress`` is called
    before the warm-up and after each round, ``warmed`` after the warm-up, ``reference`` after each round.
    """
    clock = device_seconds if batch.device.type == "cuda" else host_seconds
    progress(0, rounds)
    warmups = warm_up(lambda: clock(embed, batch))
    durations: list[float] = []
    kernel: list[ReferenceSeconds] = []
    warmed()
    before, taken = waiting_times(), stolen_ticks()
    begun = time.monotonic()
    with _without_collections():
        for _ in range(rounds) if interleaving is None else interleaving.each(rounds):
            durations.append(clock(embed, batch))
            if reference is not None:
                kernel.append(reference())
            progress(len(durations), rounds)
    on_cpu = batch.device.type == "cpu"
    timed_s = sum(durations) + sum(seconds.whole for seconds in kernel)
    stolen = steal(taken, stolen_ticks(), time.monotonic() - begun) if on_cpu else None
    waited = contention(before, waiting_times(), timed_s) if on_cpu else None
    return Timed(durations, warmups, waited, kernel, stolen)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Disable the garbage collector, which would run in some rounds and not in others."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def latencies(embed: Embed, image: torch.Tensor) -> list[float]:
    """Return the seconds of forward passes of one image [1, 3, h, w] after a warm-up: 20 to 200, in about 5 s."""
    clock = device_seconds if image.device.type == "cuda" else host_seconds
    warm_up(lambda: clock(embed, image))
    rounds = max(20, min(200, round(LATENCY_S / clock(embed, image))))
    with _without_collections():
        return [clock(embed, image) for _ in range(rounds)]


def host_seconds(embed: Embed, batch: torch.Tensor) -> float:
    """Return the wall time of a forward pass in seconds, including the wait for the device."""
    begin = time.perf_counter()
    embed(batch)
    if batch.device.type == "mps":
        torch.mps.synchronize()
    elif batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - begin


def device_seconds(embed: Embed, batch: torch.Tensor) -> float:
    """Return the seconds between two events around a forward pass on the current CUDA device."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    embed(batch)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
