from __future__ import annotations

import errno
import resource

import pytest
import torch

from embedcore.embed.memory import is_out_of_memory, peak_memory_mb, release_memory


def test_a_real_allocation_failure_is_told():
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


def test_peak_covers_what_was_allocated():
    before = peak_memory_mb(torch.device("cpu"))
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert peak_memory_mb(torch.device("cpu")) >= before
    assert peak_memory_mb(torch.device("cpu")) > block.nbytes / 2**20


@pytest.fixture
def limit(monkeypatch):
    """A limit of memory, as a list of all that it was set to, soft and hard."""
    values = [(100, 200)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: values[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: values.append(value))
    return values


def test_what_onednn_says_means_memory_only_under_a_limit(limit):
    error = RuntimeError("could not create a primitive")
    assert is_out_of_memory(error)
    limit.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not is_out_of_memory(error)


def test_each_release_allows_half_of_what_the_limit_withholds(limit):
    for _ in range(3):
        release_memory(torch.device("cpu"))
    assert limit == [(100, 200), (150, 200), (175, 200), (187, 200)]


def test_a_limit_without_a_reserve_is_left_as_it_is(limit):
    limit[:] = [(100, resource.RLIM_INFINITY)]
    release_memory(torch.device("cpu"))
    assert limit == [(100, resource.RLIM_INFINITY)]
