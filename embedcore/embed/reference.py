"""The reference kernel: a matrix product and a copy of fixed size, whose seconds show the state of the machine."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

_PRODUCT = (32, 64, 64)
"""On the CPU: a stack of matrices so small that BLAS multiplies them with one thread."""
_PRODUCTS = 8
_COPY_BYTES = 8 * 2**20

_CARD_PRODUCT = 2048
_CARD_PRODUCTS = 8
_CARD_COPY_BYTES = 16 * 2**20
_CARD_COPIES = 16


class ReferenceSeconds(NamedTuple):
    """Seconds of one call of the kernel: of all of it, and of its copy alone."""

    whole: float
    copy: float


class CpuReference:
    """The kernel on the CPU, in numpy, with one thread; about 2 ms."""

    def __init__(self) -> None:
        self._factor = np.random.default_rng(0).standard_normal(_PRODUCT, dtype=np.float32)
        # Written to here, so that all of it is resident from now on.
        self._product = np.ones_like(self._factor)
        self._source = np.ones(_COPY_BYTES, dtype=np.uint8)
        self._copy = np.ones_like(self._source)
        self.nbytes = 2 * (self._factor.nbytes + self._source.nbytes)
        """Memory that it takes, in bytes."""

    def __call__(self) -> ReferenceSeconds:
        begin = time.perf_counter()
        for _ in range(_PRODUCTS):
            np.matmul(self._factor, self._factor, out=self._product)
        between = time.perf_counter()
        np.copyto(self._copy, self._source)
        end = time.perf_counter()
        return ReferenceSeconds(end - begin, end - between)


class CardReference:
    """The kernel on a CUDA device, in torch and half precision; equal work with equal torch, CUDA and driver."""

    def __init__(self, device: torch.device) -> None:
        shape = _CARD_PRODUCT, _CARD_PRODUCT
        self._factor = torch.ones(shape, dtype=torch.float16, device=device)
        self._product = torch.empty_like(self._factor)
        self._source = torch.zeros(_CARD_COPY_BYTES, dtype=torch.uint8, device=device)
        self._copy = torch.empty_like(self._source)
        self.nbytes = 2 * (self._factor.nbytes + self._source.nbytes)
        """Memory that it takes, in bytes."""
        self()  # cuBLAS allocates a workspace at the first product

    def __call__(self) -> ReferenceSeconds:
        begin, between, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        begin.record()
        for _ in range(_CARD_PRODUCTS):
            torch.mm(self._factor, self._factor, out=self._product)
        between.record()
        for _ in range(_CARD_COPIES):
            self._copy.copy_(self._source)
        end.record()
        end.synchronize()
        return ReferenceSeconds(begin.elapsed_time(end) / 1e3, between.elapsed_time(end) / 1e3)


Reference = CpuReference | CardReference


def reference_on(device: torch.device) -> Reference:
    """Return the reference kernel on a device; the CPU's also beside an MPS device."""
    return CardReference(device) if device.type == "cuda" else CpuReference()
