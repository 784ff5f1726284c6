from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from embedcore.measure.executors import ChildExecutor, InlineExecutor, exit_words
from embedcore.measure.measure import Images


@pytest.fixture
def executor():
    return ChildExecutor(timeout_s=120)


def with_pixels(images, pixels):
    return Images(images.dataset, pixels)


def test_child_and_inline_give_the_same_scores(case, images, executor):
    progress = []
    child = executor.run(case, images, lambda done, total: progress.append((done, total)))
    inline = InlineExecutor().run(case, images)
    assert child.status == inline.status == "ok", (child.reason, inline.reason)
    assert child.scores == inline.scores
    assert child.ci95 == inline.ci95
    assert child.verdicts == inline.verdicts
    assert child.weights == inline.weights == {"source": "random", "id": "seed:0"}
    assert progress[-1] == (20, 20)
    assert len(child.durations) == case.rounds


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        ("Segfault", "was killed by SIGSEGV", "about to fall"),
        ("Killed", "was killed by SIGKILL", ""),
        ("Exits", "ended with exit code 7", ""),
    ],
)
def test_a_child_that_dies_is_a_crashed_result(case, images, executor, faults, shape, fault, reason, detail):
    result = executor.run(case, with_pixels(images, getattr(faults, fault)(shape)))
    assert (result.status, result.outcome) == ("crashed", "fail")
    assert reason in result.reason
    assert detail in result.detail
    assert executor.run(case, images).status == "ok"


def test_a_hanging_child_is_a_timeout_and_its_children_are_gone(case, images, faults, shape, tmp_path):
    pid_file = tmp_path / "pid"
    executor = ChildExecutor(timeout_s=4)
    result = executor.run(case, with_pixels(images, faults.HangsWithChild(shape, str(pid_file))))
    assert (result.status, result.outcome) == ("timeout", "fail")
    assert "4 s" in result.reason
    deadline = time.monotonic() + 5
    while is_running(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(pid_file.read_text()))


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"  # a zombie waits for its adoptive parent only
    except FileNotFoundError:
        return False


def test_an_exception_keeps_its_traceback(case, images, executor, faults, shape):
    result = executor.run(case, with_pixels(images, faults.Raises(shape)))
    assert result.status == "error"
    assert result.reason == "KeyError: 'no such thing'"
    assert "Traceback" in result.detail
    assert "in strike" in result.detail


def test_megabytes_of_output_neither_block_nor_reach_the_terminal(case, images, executor, faults, shape, capfd):
    result = executor.run(case, with_pixels(images, faults.Chatty(shape)))
    assert result.status == "ok", result.reason
    assert "xxx" not in "".join(capfd.readouterr())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_process_and_no_descriptor_is_left(case, images, executor):
    executor.run(case, images)
    before = open_descriptors()
    for _ in range(3):
        executor.run(dataclasses.replace(case, rounds=1), images)
    assert open_descriptors() == before


def test_unknown_signal_and_code_in_words():
    assert exit_words(-6) == "was killed by SIGABRT"
    assert exit_words(0) == "ended with exit code 0"
    assert "signal 63" in exit_words(-63)
