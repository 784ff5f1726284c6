"""Durations of the bare forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from embedcore.embed.turns import Turns

FEWEST_WARMUPS, MOST_WARMUPS = 2, 20
AGREEMENT = 0.05

Embed = Callable[[torch.Tensor], torch.Tensor]


def warm_up(seconds: Callable[[], float]) -> int:
    """Run rounds until two successive ones differ by at most 5 % of the longer, at least 2 and at most 20.

    ``seconds()`` runs a round and gives its duration. Returns how many were run.
    """
    last = seconds()
    for rounds in range(FEWEST_WARMUPS, MOST_WARMUPS + 1):
        now = seconds()
        if abs(now - last) <= AGREEMENT * max(now, last):
            return rounds
        last = now
    return MOST_WARMUPS


def time_forward(
    embed: Embed, batch: torch.Tensor, rounds: int = 10, turns: Turns | None = None
) -> tuple[list[float], int]:
    """Seconds of each of ``rounds`` forward passes of the same ``batch`` [b, 3, h, w], and how many rounds of
    :func:`warm_up` came before them. Run in the context that the passes need (``precision.autocast``).

    On CUDA the time is taken on the device with events; elsewhere with a monotonic clock on the host. With ``turns``
    another process makes its rounds in turn with these.
    """
    clock = device_seconds if batch.device.type == "cuda" else host_seconds
    warmups = warm_up(lambda: clock(embed, batch))
    return [clock(embed, batch) for _ in (range(rounds) if turns is None else turns.each(rounds))], warmups


def host_seconds(embed: Embed, batch: torch.Tensor) -> float:
    """Wall time of a forward pass, waiting for the device included."""
    begin = time.perf_counter()
    embed(batch)
    if batch.device.type == "mps":
        torch.mps.synchronize()
    elif batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - begin


def device_seconds(embed: Embed, batch: torch.Tensor) -> float:
    """Time of a forward pass on the current CUDA device, between two events."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    embed(batch)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
