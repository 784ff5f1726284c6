from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedcore.embed.contention import contention, steal, stolen_ticks, waiting_times
from embedcore.embed.timing import time_forward

counters = st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**9))


def test_waiting_of_all_threads_over_wall_time():
    before, after = {"1": 7_000_000, "2": 0}, {"1": 57_000_000, "2": 150_000_000}
    assert contention(before, after, 2.0) == pytest.approx(0.1)
    assert contention(before, before, 2.0) == 0


def test_new_threads_count_and_ended_threads_do_not():
    assert contention({"1": 0, "gone": 10**9}, {"1": 0, "new": 500_000_000}, 1.0) == 0.5


@given(counters, counters, st.floats(0.001, 100))
def test_contention_is_never_negative(before, risen, wall):
    after = {thread: before.get(thread, 0) + more for thread, more in risen.items()}
    assert contention(before, after, wall) == pytest.approx(sum(risen.values()) / 1e9 / wall)


@pytest.mark.parametrize(("before", "after", "wall"), [(None, {"1": 1}, 1.0), ({"1": 1}, None, 1.0), ({}, {}, 0.0)])
def test_unknown_contention_is_none(before, after, wall):
    assert contention(before, after, wall) is None


def test_the_kernels_counters_are_read_thread_by_thread(tmp_path):
    for thread, text in {"41": "900 17 3\n", "42": "5 0 1\n"}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    (tmp_path / "43").mkdir()  # the thread ended meanwhile
    assert waiting_times(tmp_path) == {"41": 17, "42": 0}
    assert waiting_times(tmp_path / "nowhere") is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters")
def test_time_that_the_hypervisor_took_from_the_cores_of_this_process(tmp_path):
    mine, stat = min(os.sched_getaffinity(0)), tmp_path / "stat"
    stat.write_text(
        f"cpu  9 9 9 9 9 9 9 999 0 0\ncpu{mine} 1 2 3 4 5 6 7 50 0 0\ncpu4096 1 1 1 1 1 1 1 7 0 0\nintr 5\n"
    )
    assert stolen_ticks(stat) == 50
    assert stolen_ticks(tmp_path / "nowhere") is None
    stat.write_text("cpu0\n")
    assert stolen_ticks(stat) is None
    second = os.sysconf("SC_CLK_TCK")
    assert steal(50, 50 + second, 2.0) == 0.5 and steal(50, 40, 2.0) == 0
    assert steal(None, 50, 2.0) is None and steal(50, None, 2.0) is None
    assert steal(50, 51, 5 / second) is None  # one tick would be a fifth


def _spin(started):
    started.release()
    while True:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters")
def test_rounds_beside_two_busy_processes_on_their_core_are_crowded():
    """Each of three threads on a core waits about two thirds of the time, however fast or busy the machine is."""
    core = {min(os.sched_getaffinity(0))}
    context = multiprocessing.get_context("fork")
    started = context.Semaphore(0)
    others = [context.Process(target=_spin, args=(started,), daemon=True) for _ in range(2)]
    found = []

    def work(batch):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass

    def measure():
        os.sched_setaffinity(0, core)  # of this thread alone
        found.append(time_forward(work, torch.zeros(1, 3, 2, 2), 30))

    try:
        for other in others:
            other.start()
            os.sched_setaffinity(other.pid, core)
            started.acquire()
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
    finally:
        for other in others:
            other.kill()
            other.join()
    assert found[0].contention > 0.3
