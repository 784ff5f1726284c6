from __future__ import annotations

import errno
import itertools
import resource
import threading

import numpy as np
import pytest
import torch

from embedcore.embed.memory import PeakMemory, fits_if_smaller, is_out_of_memory, release_memory


def test_a_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    "text",
    [
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false.",
        "input tensor must fit into 32-bit index math",
        "integer out of range",
    ],
)
def test_index_overflows_halve_the_batch_but_are_not_out_of_memory(text):
    assert fits_if_smaller(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError(text))  # with one image it is an error
    assert not fits_if_smaller(ValueError(text))


def test_out_of_memory_halves_the_batch():
    assert fits_if_smaller(MemoryError())
    assert not fits_if_smaller(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


MB = 10**6


def test_a_mapped_file_that_is_read_does_not_count(tmp_path):
    path = tmp_path / "pixels.npy"
    np.save(path, np.ones(200 * MB, np.uint8))
    with PeakMemory() as memory:
        total = int(np.load(path, mmap_mode="r").sum(dtype=np.int64))
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert memory.mb < 100
    assert (total, resident > 200 * MB / 2**10) == (200 * MB, True)


def test_an_allocation_that_is_freed_again_counts():
    with PeakMemory() as memory:
        block = np.ones(300 * MB, np.uint8)
        before = memory.mb
        del block
        assert memory.mb == before
    assert 290 < memory.mb < 400


def test_memory_is_sampled_continuously():
    """The sampler sees memory that grows and shrinks between two reads."""
    looked = threading.Semaphore(0)
    sizes = itertools.chain([1000 * MB, 1700 * MB, 1200 * MB], itertools.repeat(1100 * MB))

    def private_bytes():
        looked.release()
        return next(sizes)

    with PeakMemory(private_bytes) as memory:
        for _ in range(4):
            assert looked.acquire(timeout=60)
        assert memory.mb == 700
    assert not [thread for thread in threading.enumerate() if thread.name == "embedcore-memory"]


def test_on_a_card_the_peak_is_the_allocation_since_the_forward_passes_began(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 123_400_000)
    with PeakMemory() as memory:
        memory.restart(torch.device("cuda", 1))
        assert memory.mb == 123.4
    assert asked == [torch.device("cuda", 1)] * 2


@pytest.fixture
def limit(monkeypatch):
    """A fake memory limit: the list of its values, soft and hard."""
    values = [(100, 200)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: values[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: values.append(value))
    return values


def test_errors_of_onednn_mean_memory_only_under_a_limit(limit):
    error = RuntimeError("could not create a primitive")
    assert is_out_of_memory(error)
    limit.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not is_out_of_memory(error)


def test_each_release_allows_half_of_the_reserve(limit):
    for _ in range(3):
        release_memory(torch.device("cpu"))
    assert limit == [(100, 200), (150, 200), (175, 200), (187, 200)]


def test_a_limit_without_a_reserve_is_left_as_it_is(limit):
    limit[:] = [(100, resource.RLIM_INFINITY)]
    release_memory(torch.device("cpu"))
    assert limit == [(100, resource.RLIM_INFINITY)]
