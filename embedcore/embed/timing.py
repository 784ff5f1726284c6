"""Durations of the bare forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from embedcore.embed.precision import autocast

WARMUP_ROUNDS = 2


def time_forward(
    embed: Callable[[torch.Tensor], torch.Tensor],
    batch: torch.Tensor,
    *,
    precision: str = "fp32",
    rounds: int = 10,
    warmup_rounds: int = WARMUP_ROUNDS,
) -> list[float]:
    """Seconds of each of ``rounds`` forward passes of the same ``batch`` [b, 3, h, w], after ``warmup_rounds`` more.

    On CUDA the time is taken on the device with events; elsewhere with a monotonic clock on the host.
    """
    clock = _device_seconds if batch.device.type == "cuda" else _host_seconds
    with torch.inference_mode(), autocast(precision, batch.device):
        for _ in range(warmup_rounds):
            clock(embed, batch)
        return [clock(embed, batch) for _ in range(rounds)]


def _host_seconds(embed: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> float:
    begin = time.perf_counter()
    embed(batch)
    if batch.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - begin


def _device_seconds(embed: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    embed(batch)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
