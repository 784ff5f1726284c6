"""Measure the CPU's speed at convolutions and matrix products in a fraction of a second."""

from __future__ import annotations

import time

import torch
from torch import Tensor

_IMAGES, _KERNEL = (4, 64, 56, 56), (64, 64, 3, 3)
_ROWS, _WEIGHT = (512, 768), (768, 1024)
_GMACS = (4 * 64 * 56 * 56 * 64 * 9 + 512 * 768 * 1024) / 1e9


def cpu_gmacs_per_s(seconds: float = 0.1) -> float | None:
    """Return billions of multiply-accumulates per second, for a convolution and a matrix product with all threads.

    The best of the runs that fit in ``seconds``, at least one after a warm-up; None if torch cannot run them.
    """
    try:
        with torch.inference_mode():
            tensors = [torch.ones(shape) for shape in (_IMAGES, _KERNEL, _ROWS, _WEIGHT)]
            _seconds(*tensors)  # to warm up
            end, best = time.perf_counter() + seconds, _seconds(*tensors)
            while time.perf_counter() < end:
                best = min(best, _seconds(*tensors))
    except RuntimeError:
        return None
    return _GMACS / best


def _seconds(images: Tensor, kernel: Tensor, rows: Tensor, weight: Tensor) -> float:
    begin = time.perf_counter()
    torch.nn.functional.conv2d(images, kernel, padding=1)
    torch.mm(rows, weight)
    return time.perf_counter() - begin
