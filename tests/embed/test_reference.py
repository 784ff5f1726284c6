from __future__ import annotations

import itertools

import numpy as np
import torch

from embedcore.embed import reference
from embedcore.embed.reference import CpuReference, reference_on


def test_the_seconds_are_those_of_product_and_copy(monkeypatch):
    ticks = iter([10.0, 13.0, 18.0])
    monkeypatch.setattr(reference.time, "perf_counter", lambda: next(ticks))
    assert CpuReference()() == (8.0, 5.0)


def test_the_same_work_is_done_each_time():
    kernel = CpuReference()
    kernel()
    product, copy = kernel._product.copy(), kernel._copy.copy()
    np.testing.assert_allclose(product, kernel._factor @ kernel._factor, rtol=1e-5)
    np.testing.assert_array_equal(copy, kernel._source)
    kernel()
    np.testing.assert_array_equal(kernel._product, product)


def test_its_memory_is_known():
    kernel = CpuReference()
    arrays = (value for value in vars(kernel).values() if isinstance(value, np.ndarray))
    assert kernel.nbytes == sum(array.nbytes for array in arrays) < 20 * 2**20


def test_a_card_has_its_own_kernel(monkeypatch):
    """torch.cuda is a fake: its events count the operations before them, a millisecond each."""
    done = itertools.count(1)
    calls = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = len(calls)

        def synchronize(self):
            next(done)

        def elapsed_time(self, other):
            return float(other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "mm", lambda *arguments, out: calls.append("product"))
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, other: calls.append("copy"))
    cpu = torch.device("cpu")
    kernel = reference.CardReference(cpu)
    calls.clear()
    seconds = kernel()
    assert next(done) == 3  # waited for the device in both calls
    assert seconds.whole == len(calls) / 1e3 and seconds.copy == calls.count("copy") / 1e3
    assert calls == sorted(calls, reverse=True)
    assert type(reference_on(cpu)) is CpuReference
