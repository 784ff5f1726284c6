"""The processes of a case end when one of their ancestors is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

from embedcore.forkserver import forkserver_context
from embedcore.measure.executors import ChildExecutor
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.supervisor import descendants


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_no_process_survives_a_killed_session(case, images, faults, shape, tmp_path):
    """A session in a process of its own, whose measuring process hangs in native code."""
    pid_file = tmp_path / "pid"
    pixels = faults.HangsHoldingTheLock(shape, str(pid_file))
    session = forkserver_context().Process(target=faults.session, args=(case, CaseInputs(images.truth, pixels)))
    session.start()
    try:
        assert wait_for(pid_file.exists, 90)
        below = descendants(session.pid)
        assert int(pid_file.read_text()) in below
        assert len(below) >= 3  # its forkserver, the supervisor and the measuring process at least
    finally:
        session.kill()
        session.join()
    assert wait_for(lambda: not any(is_running(pid) for pid in below), 10)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_death_of_the_forkserver_is_survived(case, images, faults, shape, tmp_path):
    """Killed during a case, so that the next case finds none."""
    executor = ChildExecutor(timeout_s=120)
    pid_file = tmp_path / "pid"
    victims = []

    def kill_forkserver():
        wait_for(pid_file.exists, 60)
        victims.append(forkserver._forkserver._forkserver_pid)
        os.kill(victims[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_forkserver)
    thread.start()
    during = executor.run(case, CaseInputs(images.truth, faults.Slow(shape, str(pid_file))))
    thread.join()
    assert during.status == "ok", during.reason
    assert executor.run(case, images).status == "ok"
    assert forkserver._forkserver._forkserver_pid != victims[0]
    assert multiprocessing.active_children() == []
