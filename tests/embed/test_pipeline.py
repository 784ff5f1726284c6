"""The pipeline on devices whose stages take known times of a simulated clock."""

from __future__ import annotations

import threading
import traceback

import numpy as np
import pytest

from embedcore.embed.pipeline import run, spans_of

PATIENCE_S = 60  # for events that are immediate unless the pipeline is broken


@pytest.mark.parametrize(("start", "total", "size"), [(0, 61, 16), (32, 61, 2), (0, 5, 5), (3, 64, 16), (7, 7, 2)])
def test_equal_spans_hold_every_image_and_are_of_one_size(start, total, size):
    spans = list(spans_of(start, total, size, equal=True))
    assert {stop - begin for begin, stop in spans} <= {size}
    assert {i for span in spans for i in range(*span)} >= set(range(start, total))
    assert [stop for _, stop in spans] == [stop for _, stop in spans_of(start, total, size)]


class Simulated:
    """A lane whose stages take time on simulated clocks: one of each thread, and one of each engine of the device.

    What a thread does moves its own clock; what it begins on the device is done when the engine, the thread and what
    came before are. A host buffer is free when its copy has ended and the caller has given it back.
    """

    def __init__(self, read=0, copy=0, compute=0, fetch=0, *, slots=3, flying=2):
        self.seconds = {"read": read, "copy": copy, "compute": compute, "fetch": fetch}
        self.slots, self.flying = slots, flying
        self.threads, self.engines = {}, {"copy": 0, "compute": 0, "fetch": 0}
        self.free, self.slot_of = {}, None
        self.log = {}

    def _now(self, at_least=0):
        me = threading.get_ident()
        self.threads[me] = max(self.threads.get(me, 0), at_least)
        return self.threads[me]

    def _begin(self, stage, span, after=0):
        begin = max(self.engines[stage], self._now(), after)
        self.engines[stage] = begin + self.seconds[stage]
        self.log[stage, span[0]] = (begin, self.engines[stage])
        return self.engines[stage]

    def host_buffer(self, span, slot):
        begin = self._now(self.free.get(slot, 0))
        end = self.threads[threading.get_ident()] = begin + self.seconds["read"]
        self.log["read", span[0]] = (begin, end)
        return span

    def upload(self, host, slot):
        self.free[slot] = done = self._begin("copy", host)
        return host, slot, self._now(), done

    def compute(self, batch):
        span, slot, handed, copied = batch
        self._now(handed)
        self.slot_of = slot
        return span, self._begin("compute", span, copied)

    def fetch(self, output):
        span, computed = output
        return span, self._begin("fetch", span, computed)

    def rows(self, fetched):
        span, done = fetched
        self.free[self.slot_of] = max(self.free[self.slot_of], self._now(done))  # the caller gives it back after this
        return np.arange(*span, dtype=np.float32)[:, None]

    @property
    def total(self):
        return max(end for _, end in self.log.values())


def drive(lane, batches=50):
    rows = []
    run(lane, list(spans_of(0, batches, 1)), lambda span, got: rows.extend(got[:, 0].tolist()))
    assert rows == list(range(batches))
    return lane


STAGES = ["read", "copy", "compute", "fetch"]


@pytest.mark.parametrize("slowest", STAGES)
@pytest.mark.parametrize("others", [0, 1, 3, 4])
def test_batches_take_the_slowest_stage_and_the_filling_not_the_sum(slowest, others):
    seconds = dict.fromkeys(STAGES, others) | {slowest: 4}
    assert drive(Simulated(**seconds)).total == 50 * 4 + 3 * others


@pytest.mark.parametrize("slowest", STAGES)
def test_sequential_batches_take_the_sum(slowest):
    seconds = dict.fromkeys(STAGES, 1) | {slowest: 4}
    assert drive(Simulated(**seconds, slots=0, flying=0)).total == 50 * 7


def test_reading_copying_and_computing_of_neighbours_overlap():
    log = drive(Simulated(read=2, copy=1, compute=4, fetch=1)).log
    for i in range(5, 45):
        assert log["read", i + 1][0] < log["compute", i][1]
        assert log["copy", i + 1][1] <= log["compute", i][1]
        assert log["compute", i + 1][0] == log["compute", i][1]  # the device never waits


class Barriers(Simulated):
    """The computation of each batch waits until reading of the next has begun, in real threads."""

    def __init__(self, batches):
        super().__init__()
        self.begun = [threading.Event() for _ in range(batches + 1)]
        self.begun[batches].set()

    def host_buffer(self, span, slot):
        self.begun[span[0]].set()
        return super().host_buffer(span, slot)

    def compute(self, batch):
        assert self.begun[batch[0][1]].wait(PATIENCE_S)
        return super().compute(batch)


def test_reading_of_the_next_begins_before_computing_ends():
    drive(Barriers(20), 20)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "embedcore-reader"]


class BreaksError(Exception):
    pass


def broken(stage, number, kind=BreaksError):
    class Broken(Simulated):
        pass

    def strike(self, batch, *rest):
        span = batch
        while isinstance(span[0], tuple):
            span = span[0]
        if span[0] == number:
            raise kind(stage)
        return getattr(Simulated, stage)(self, batch, *rest)

    setattr(Broken, stage, strike)
    return Broken


@pytest.mark.parametrize("slots", [0, 3])
@pytest.mark.parametrize("stage", ["host_buffer", "upload", "compute", "fetch", "rows"])
@pytest.mark.parametrize("kind", [BreaksError, KeyboardInterrupt, MemoryError])
def test_an_error_of_any_stage_reaches_the_caller_with_its_traceback(stage, kind, slots):
    delivered = []
    with pytest.raises(kind) as caught:
        run(broken(stage, 7, kind)(slots=slots), list(spans_of(0, 50, 1)), lambda span, rows: delivered.append(span[0]))
    assert "strike" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert delivered == list(range(len(delivered)))
    assert len(delivered) <= 7
    assert not readers()


@pytest.mark.parametrize("kind", [BreaksError, KeyboardInterrupt])
@pytest.mark.parametrize("last", [False, True])
def test_the_reader_ends_when_the_consumer_stops(kind, last):
    def deliver(span, rows):
        if span[0] == (49 if last else 3):
            raise kind

    lane = Simulated()
    with pytest.raises(kind):
        run(lane, list(spans_of(0, 50, 1)), deliver)
    assert not readers()
    if not last:
        assert max(first for stage, first in lane.log if stage == "read") <= 3 + lane.flying + lane.slots


def test_rows_are_delivered_in_the_callers_thread():
    threads = set()
    run(Simulated(), list(spans_of(0, 9, 1)), lambda span, rows: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_no_spans():
    run(Simulated(), [], lambda span, rows: pytest.fail("nothing was read"))
    assert not readers()
