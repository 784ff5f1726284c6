from __future__ import annotations

import dataclasses
import faulthandler
import pickle

import pytest

from embedcore.embed.memory import is_bounded
from embedcore.measure import executors
from embedcore.measure.executors import ChildExecutor
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.oom_killer import ran_out
from embedcore.measure.outcome import failure


def run(case, images, pixels=None, **changes):
    return ChildExecutor(timeout_s=60).run(
        dataclasses.replace(case, **changes), images if pixels is None else CaseInputs(images.truth, pixels)
    )


def test_a_limit_with_room_changes_nothing(case, images):
    free, limited = run(case, images), run(case, images, memory_limit=2.0)
    assert limited.status == "ok", limited.reason
    assert (limited.scores, limited.batch_size, limited.batch_decayed) == (free.scores, free.batch_size, False)


def test_a_tight_limit_halves_the_batch_and_keeps_the_scores(case, images, faults, shape):
    free, limited = (run(case, images, faults.Hungry(shape), memory_limit=limit) for limit in (None, 0.8))
    assert limited.status == "ok", (limited.reason, limited.detail)
    assert (free.batch_size, free.batch_decayed) == (16, False)
    assert (limited.batch_size, limited.batch_decayed) in [(4, True), (8, True)]
    assert limited.scores == free.scores
    assert limited.peak_memory_mb < free.peak_memory_mb


def test_a_limit_too_small_for_one_image_is_oom(case, images):
    result = run(case, images, memory_limit=0.0001)
    assert (result.status, result.outcome) == ("oom", "skip"), (result.reason, result.detail)
    assert "; peak memory " in result.reason
    assert result.peak_memory_mb < 0.1 * 2**30 / 1e6  # memory had not grown when the limit was reached


def test_a_child_that_exhausts_the_limit_is_oom(case, images, faults, shape):
    result = run(case, images, faults.ExhaustsMemory(shape), memory_limit=0.5)
    assert (result.status, result.outcome) == ("oom", "skip"), (result.reason, result.detail)
    assert "MemoryError" in result.reason
    assert 400 < result.peak_memory_mb <= 0.5 * 2**30 / 1e6  # the limit applies to the growth


def test_an_abort_over_bad_alloc_is_oom(case, images, faults, shape):
    result = run(case, images, faults.ThrowsBadAlloc(shape), memory_limit=0.5)
    assert (result.status, result.outcome) == ("oom", "skip"), (result.reason, result.detail)
    assert "was killed by SIGABRT for lack of memory; peak memory " in result.reason
    assert "std::bad_alloc" in result.detail


@pytest.mark.parametrize(
    ("code", "words", "limited", "expected"),
    [
        (-6, "what():  std::bad_alloc", False, True),
        (-6, "Assertion failed", True, False),
        (-11, "std::bad_alloc", False, False),
        (1, "libgomp: Thread creation failed: Resource temporarily unavailable", True, True),
        (1, "libgomp: Thread creation failed: Resource temporarily unavailable", False, False),
        (0, "MemoryError", True, False),
    ],
)
def test_deaths_from_lack_of_memory(code, words, limited, expected):
    assert ran_out(code, words, limited=limited) is expected


def test_the_limit_applies_to_the_cpu():
    assert is_bounded("cpu")
    assert not is_bounded("cuda:99")


@pytest.mark.parametrize(("engine", "device"), [("eager", "auto"), ("openvino", "cpu")])
def test_the_limit_follows_the_device_of_the_engine(case, images, monkeypatch, engine, device):
    """Where there is a card, ``auto`` is the card for eager, and still the CPU for openvino."""
    asked = []
    monkeypatch.setattr(executors, "is_bounded", asked.append)
    monkeypatch.setattr(faulthandler, "enable", lambda **options: None)
    limited = dataclasses.replace(case, engine=engine, memory_limit=1.0)
    pickled = pickle.dumps((limited, images))
    executors._work(pickled, lambda case, *others: failure(case, MemoryError()), None, lambda message: None)
    assert asked == [device]
