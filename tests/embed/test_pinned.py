from __future__ import annotations

import os
import sys

import pytest
import torch

from embedcore.embed.pinned import images_of_round, pinned_thread, rounds_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can pin a thread")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@linux
def test_torch_has_one_thread_on_one_core_and_then_all_again(two_threads):
    allowed = os.sched_getaffinity(0)
    with pinned_thread() as core:
        assert core == max(allowed) and os.sched_getaffinity(0) == {core}
        assert torch.get_num_threads() == 1
    assert os.sched_getaffinity(0) == allowed and torch.get_num_threads() == 2
    with pytest.raises(RuntimeError), pinned_thread():
        raise RuntimeError
    assert os.sched_getaffinity(0) == allowed and torch.get_num_threads() == 2


@linux
def test_where_no_thread_can_be_pinned_nothing_changes(monkeypatch):
    def refuse(pid, cores):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    threads = torch.get_num_threads()
    with pinned_thread() as core:
        assert core is None and torch.get_num_threads() == threads
    monkeypatch.setattr(sys, "platform", "darwin")
    with pinned_thread() as core:
        assert core is None


@pytest.mark.parametrize("gmacs", [None, 0.0, 0.001, 0.06, 0.7, 4.0, 1000.0])
def test_a_round_has_images_of_the_batch(gmacs):
    assert 1 <= images_of_round(gmacs, 16) <= 16
    assert images_of_round(gmacs, 1) == 1


@pytest.mark.parametrize(("seconds", "rounds", "expected"), [(1e-4, 2, 12), (0.5, 2, 4), (60.0, 2, 2), (60.0, 10, 5)])
def test_slow_rounds_are_few(seconds, rounds, expected):
    assert rounds_of(seconds, rounds) == expected
