"""Interleaving, tested with two threads, of which only one may work at a time."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from embedcore.embed import interleaving, timing
from embedcore.embed.interleaving import Interleaving


@pytest.fixture
def fifos(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    descriptors = []
    for path in paths:
        os.mkfifo(path)
        descriptors.append(os.open(path, os.O_RDWR))
    yield paths
    for descriptor in descriptors:
        os.close(descriptor)


class Partners:
    """Two threads that record their work, `rounds` times each; the first has the first turn."""

    def __init__(self, fifos, work, rounds):
        self.fifos, self.noted = fifos, []
        self.threads = [
            threading.Thread(target=self.run, args=(name, own, other, work, count), daemon=True)
            for name, own, other, count in zip("ab", fifos, reversed(fifos), rounds, strict=True)
        ]

    def run(self, name, own, other, work, rounds):
        mine = Interleaving(str(own), str(other))
        mine.wait()
        self.noted.append(f"{name} prepares")
        work(name)
        for number in mine.each(rounds):
            self.noted.append(f"{name}{number}")
            work(name)
        self.noted.append(f"{name} is done")

    def go(self):
        for thread in self.threads:
            thread.start()
        interleaving.start(self.fifos[0])

    def join(self):
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def test_rounds_alternate_one_at_a_time(fifos):
    busy = threading.Lock()

    def work(name):
        assert busy.acquire(blocking=False)
        busy.release()

    partners = Partners(fifos, work, (3, 3))
    partners.go()
    partners.join()
    assert partners.noted[:8] == ["a prepares", "b prepares", "a0", "b0", "a1", "b1", "a2", "b2"]
    assert sorted(partners.noted[8:]) == ["a is done", "b is done"]


class Lost(Exception):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_other_process_continues_alone_when_released(fifos):
    failed = threading.Event()

    def work(name):
        if name == "a" and "a1" in partners.noted:
            failed.set()
            raise Lost  # ends the thread, with the token

    partners = Partners(fifos, work, (5, 5))
    partners.go()
    assert failed.wait(20)
    interleaving.release(fifos[1])
    partners.join()
    assert [note for note in partners.noted if note[0] == "b"] == [
        "b prepares",
        *(f"b{i}" for i in range(5)),
        "b is done",
    ]


def test_a_process_with_fewer_rounds_leaves_its_partner_waiting_until_released(fifos):
    partners = Partners(fifos, lambda name: None, (2, 4))
    partners.go()
    partners.threads[0].join(20)
    interleaving.release(fifos[1])
    partners.join()
    assert partners.noted.count("b3") == 1


def test_timing_rounds_wait_for_their_turn(fifos):
    mine = Interleaving(*map(str, fifos))
    interleaving.start(fifos[0])
    mine.wait()
    interleaving.release(fifos[0])  # without a partner
    calls = []

    def embed(batch):
        calls.append(1)
        return batch

    timed = timing.time_forward(embed, torch.zeros(1, 3, 2, 2), 4, mine)
    assert len(timed.durations) == 4 and len(calls) == 4 + timed.warmups
