from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedcore.embed.memory import halving

CPU = torch.device("cpu")


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_first_half_that_fits(batch_size, room):
    tried = []

    def step(size):
        tried.append(size)
        if size > room:
            raise MemoryError
        return f"{size} images"

    value, fitted = halving(batch_size, CPU, step)
    assert value == f"{fitted} images"
    assert fitted <= room
    assert tried[0] == batch_size
    assert all(larger // 2 == smaller for larger, smaller in itertools.pairwise(tried))
    assert fitted == batch_size or 2 * fitted + 1 > room


@pytest.mark.parametrize("error", [MemoryError("no room"), torch.cuda.OutOfMemoryError("CUDA out of memory")])
def test_with_one_image_the_error_is_raised(error):
    tried = []

    def step(size):
        tried.append(size)
        raise error

    with pytest.raises(type(error)):
        halving(5, CPU, step)
    assert tried == [5, 2, 1]


def test_other_errors_are_raised_at_once():
    def step(size):
        raise RuntimeError(f"{size}: shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="5: shapes"):
        halving(5, CPU, step)


def test_memory_of_the_failed_step_is_freed_before_the_next():
    held = []

    def step(size):
        batch = torch.zeros(size)
        if held:
            gc.collect()
            assert held[-1]() is None
        held.append(weakref.ref(batch))
        if size > 1:
            raise MemoryError

    halving(8, CPU, step)
    assert len(held) == 4
