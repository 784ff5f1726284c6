"""The CUDA lane on a fake torch.cuda, which records the calls to each stream, in order."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
import torch

from embedcore.embed import pipeline
from embedcore.embed.pipeline import CudaLane, HostLane, run, spans_of

CPU = torch.device("cpu")


class Stream:
    def __init__(self, card, name):
        self.card, self.name = card, name

    def wait_event(self, event):
        assert event.recorded, "an event that was not recorded yet holds nothing back"
        self.card.log.append((self.name, "wait", event.recorded))


class Event:
    def __init__(self, card):
        self.card, self.recorded = card, None

    def record(self, stream):
        self.recorded = (stream.name, sum(op == "record" for _, op, _ in self.card.log))
        self.card.log.append((stream.name, "record", self.recorded))

    def synchronize(self):
        if self.recorded:  # as on a card: an event that was never recorded is over
            self.card.log.append(("host", "wait", self.recorded))


class Card:
    """The parts of torch.cuda that the lane uses, with tensors on the CPU."""

    def __init__(self, monkeypatch):
        self.log, self.kept, self.set_by, self.sides = [], [], set(), iter(["up", "down"])
        self.compute = self.current = Stream(self, "compute")
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, next(self.sides)))
        monkeypatch.setattr(torch.cuda, "Event", lambda: Event(self))
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.compute)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: self.set_by.add(threading.get_ident()))
        monkeypatch.setattr(pipeline, "pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: self.kept.append((tensor.dtype, stream.name))
        )

    @contextlib.contextmanager
    def on(self, stream):
        self.log.append((stream.name, "enter", None))
        yield


@pytest.fixture
def card(monkeypatch):
    return Card(monkeypatch)


def read(start, stop):
    return np.arange(start, stop, dtype=np.uint8).repeat(12).reshape(-1, 2, 2, 3)


def normalise(pixels):
    return pixels.float()


def forward(batch):
    return batch.mean(dim=(1, 2))


def embeddings(lane, total, size):
    out = np.full((total, 3), -1, np.float32)

    def deliver(span, rows):
        assert (out[slice(*span)] == -1).all()
        out[slice(*span)] = rows

    run(lane, list(spans_of(0, total, size)), deliver)
    return out


@pytest.mark.parametrize(("total", "size"), [(1, 4), (4, 4), (50, 4), (51, 1)])
def test_the_cuda_lane_gives_every_row_once(card, total, size):
    expected = np.arange(total, dtype=np.float32).repeat(3).reshape(-1, 3)
    assert np.array_equal(embeddings(CudaLane(CPU, read, normalise, forward, size), total, size), expected)
    assert np.array_equal(embeddings(HostLane(CPU, read, normalise, forward), total, size), expected)


def test_streams_wait_for_the_right_events(card):
    lane = CudaLane(CPU, read, normalise, forward, 4)
    embeddings(lane, 40, 4)
    waits = {(who, record[0]) for who, op, record in card.log if op == "wait"}
    # Computing waits for the normalised copy on the card; the copy back for the computing; the host for the copy back
    # and, before it fills a buffer again, for the copy out of it. Nothing else waits: copies do not wait for computing.
    assert waits == {("compute", "up"), ("down", "compute"), ("host", "down"), ("host", "up")}
    # Memory of a tensor that another stream uses than made it.
    assert card.kept == [(torch.float32, "compute"), (torch.float32, "down")] * 10
    # Pinned memory of the reader thread belongs to the same card.
    assert card.set_by and threading.get_ident() not in card.set_by


def test_a_batch_is_awaited_two_batches_later(card):
    lane = CudaLane(CPU, read, normalise, forward, 4)
    embeddings(lane, 40, 4)
    begun = 0
    for who, op, record in card.log:
        begun += (who, op) == ("down", "record")
        if (who, op) == ("host", "wait") and record[0] == "down":
            assert begun >= 3 or begun == 10
            break


def test_a_buffer_is_filled_again_only_after_its_copy(card):
    lane = CudaLane(CPU, read, normalise, forward, 4)
    for slot in (0, 1, 0):
        host = lane.host_buffer((4, 8), slot)
        lane.upload(host, slot)
    records = [record for who, op, record in card.log if (who, op) == ("up", "record")]
    assert [record for who, op, record in card.log if (who, op) == ("host", "wait")] == records[:1]
    assert lane.host_buffer((8, 9), 1).shape == (1, 2, 2, 3)  # the last batch is shorter
    assert len({lane.host_buffer((0, 4), 0).data_ptr() for _ in range(3)}) == 1


def test_on_the_cpu_pixels_are_read_on_demand():
    lane = HostLane(CPU, read, normalise, forward)
    assert (lane.slots, lane.flying) == (0, 0)
