from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedcore.measure import child, oom_killer
from embedcore.measure.executors import ChildExecutor, InlineExecutor
from embedcore.measure.inputs import CaseInputs

QUICK = {"rounds": 1}


@pytest.fixture
def executor():
    return ChildExecutor(timeout_s=120)


@pytest.fixture
def pid_file(tmp_path):
    return tmp_path / "pid"


@pytest.fixture
def strike(case, images, faults, shape, pid_file):
    """Run a fault by its name; return the result."""

    def run(fault, executor=None, stages=None, **changes):
        pixels = getattr(faults, fault)(shape, str(pid_file))
        executor = executor or ChildExecutor(timeout_s=120)
        return executor.run(dataclasses.replace(case, **QUICK, **changes), CaseInputs(images.truth, pixels), stages)

    return run


@pytest.fixture
def late_once_struck(monkeypatch, pid_file):
    """The session's clock jumps an hour ahead when the fault occurs: a time-out that does not depend on real time."""
    started = []

    def monotonic():
        struck = bool(started) and pid_file.exists()
        started.append(True)
        return time.monotonic() + 3600 * struck

    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(child, "_TICK_S", 0.02)


def is_gone(pid_file: Path) -> bool:
    """Whether the process named in the file has ended or ends within a moment; a zombie counts as ended."""
    stat = Path(f"/proc/{pid_file.read_text()}/stat")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_child_and_inline_give_the_same_scores(case, images, executor):
    progress = []
    child = executor.run(case, images, lambda *call: progress.append(call))
    inline = InlineExecutor().run(case, images)
    assert child.status == inline.status == "ok", (child.reason, inline.reason)
    assert child.scores == inline.scores
    assert child.ci95 == inline.ci95
    assert child.verdicts == inline.verdicts
    assert child.weights == inline.weights == {"source": "random", "id": "seed:0"}
    assert child.detail == ""
    assert list(dict.fromkeys(stage for stage, *_ in progress)) == ["loading", "timing", "embedding", "scoring"]
    rounds = case.rounds
    assert {("timing", 0, rounds), ("timing", rounds, rounds), ("embedding", 20, 20)} <= set(progress)
    assert len(child.durations) == case.rounds


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        ("Segfault", "the measuring process was killed by SIGSEGV; peak memory ", "about to fall"),
        ("Killed", "the measuring process was killed by SIGKILL; peak memory ", ""),
        ("KillsItsGroup", "the measuring process was killed by SIGTERM; peak memory ", ""),
        ("Exits", "the measuring process ended with exit code 7; peak memory ", ""),
        ("ExitsWithoutResult", "the measuring process ended with exit code 0; peak memory ", ""),
        ("ExitsWhenUnpickled", "the measuring process ended with exit code 7; peak memory ", ""),
        ("Garbage", "the measuring process sent an invalid message and was killed: ", ""),
        ("Nonsense", "was killed: result of 3: ", ""),
        ("HalfAMessage", "ended with exit code 3 in the middle of a message; peak memory ", ""),
        ("KillsItsParent", "the supervisor of the measuring process was killed by SIGKILL", ""),
    ],
)
def test_a_child_that_dies_or_sends_garbage_is_a_crashed_result(strike, fault, reason, detail):
    result = strike(fault)
    assert (result.status, result.outcome) == ("crashed", "fail")
    assert reason in result.reason
    assert "\n" not in result.reason
    assert detail in result.detail


def test_resident_memory_of_a_dead_child_is_reported_but_is_not_the_peak(strike):
    results = strike("Killed"), strike("Large")
    least, most = (int(re.search(r"peak memory (\d+) MB resident$", result.reason)[1]) for result in results)
    assert most == pytest.approx(least + 3 * 2**27 / 1e6, abs=9)  # MB of 10^6 bytes
    assert [result.peak_memory_mb for result in results] == [None, None]


@pytest.mark.parametrize("fault", ["Hangs", "HangsHoldingTheLock", "HangsWithChild", "HalfAMessageForEver"])
def test_a_hanging_child_is_a_timeout_and_its_processes_are_gone(strike, pid_file, fault, late_once_struck):
    result = strike(fault)
    assert (result.status, result.outcome) == ("timeout", "fail")
    assert result.reason.startswith("no result after 120 s (--embed-timeout / timeout); peak memory ")
    assert is_gone(pid_file)


def test_a_child_that_closes_its_pipe_and_does_not_exit_is_killed(strike, monkeypatch):
    monkeypatch.setattr(child, "EXIT_GRACE_S", 0.3)
    result = strike("ClosesItsPipe")
    assert result.status == "crashed"
    assert "closed its pipe without a result" in result.reason


def test_an_unresponsive_supervisor_is_killed_with_all_descendants(strike, pid_file, monkeypatch, late_once_struck):
    monkeypatch.setattr(child, "KILL_GRACE_S", 0.2)
    result = strike("StopsItsParent")
    assert (result.status, result.peak_memory_mb) == ("timeout", None)
    assert is_gone(pid_file)


@pytest.mark.parametrize(
    ("fault", "status"), [("LeavesChild", "ok"), ("LeavesDaemon", "ok"), ("DiesWithDaemon", "crashed")]
)
def test_processes_left_running_by_a_case_are_killed(strike, pid_file, fault, status):
    result = strike(fault)
    assert result.status == status, result.reason
    assert is_gone(pid_file)
    if status == "ok":
        assert "1 process left running by the case had to be killed" in result.detail


def test_an_exception_keeps_its_traceback(strike):
    result = strike("Raises")
    assert result.status == "error"
    assert result.reason == "KeyError: 'no such thing'"
    assert "Traceback" in result.detail
    assert "in strike" in result.detail


def test_a_child_has_the_current_environment_not_the_forkservers(strike, monkeypatch):
    assert strike("TellsItsEnvironment").reason.endswith("set to None")
    monkeypatch.setenv("EMBEDCORE_TEST", "now")
    assert strike("TellsItsEnvironment").reason.endswith("set to now")


def test_a_deleted_variable_of_the_forkserver_is_not_in_a_child(faults, case, images, tmp_path):
    """In a separate interpreter, whose forkserver starts with the variable."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pickle, sys\n"
        "if __name__ == '__main__':\n"
        "    from embedcore.forkserver import forkserver_context\n"
        "    os.environ['EMBEDCORE_TEST'] = 'then'\n"
        "    forkserver_context()\n"
        "    del os.environ['EMBEDCORE_TEST']\n"
        "    from embedcore.measure.executors import ChildExecutor\n"
        "    case, images = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "    print(ChildExecutor(120).run(case, images).reason)\n"
    )
    (tmp_path / "case").write_bytes(
        pickle.dumps((case, CaseInputs(images.truth, faults.TellsItsEnvironment((4, 8, 8, 3)))))
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "case"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.strip() == "RuntimeError: set to None", done.stderr


def test_nan_in_a_child(strike):
    result = strike("NotANumber")
    assert (result.status, result.outcome) == ("nan", "fail")


def test_megabytes_of_output_neither_block_nor_reach_the_terminal(strike, capfd):
    result = strike("Chatty")
    assert result.status == "ok", result.reason
    assert "xxx" not in "".join(capfd.readouterr())


def test_output_without_end_is_bounded(strike, late_once_struck):
    result = strike("ChattyForEver")
    assert result.status == "timeout"
    assert "all work and no play all work and no play" in result.detail
    assert len(result.detail) < 20_000


def test_the_out_of_memory_killer_is_distinguished_from_other_kills(strike, monkeypatch, tmp_path):
    """A machine on which the kernel's count of kills rises while the case runs."""
    counts = iter([3, 4])
    monkeypatch.setattr(oom_killer, "oom_kills", lambda: next(counts))
    result = strike("Killed")
    assert (result.status, result.outcome) == ("oom", "skip")
    assert "out-of-memory killer (SIGKILL); peak memory " in result.reason


def test_a_kill_while_memory_is_nearly_exhausted_has_a_hint(strike, monkeypatch):
    monkeypatch.setattr(oom_killer, "available_share", lambda: 0.01)
    result = strike("Killed")
    assert result.status == "crashed"
    assert "most likely for lack of memory" in result.reason
    assert "memory" not in strike("Segfault").reason.split(";")[0]


class Interrupt:
    """Ctrl-C as soon as the case is under way."""

    def __init__(self, pid_file):
        self.pid_file = pid_file

    def __call__(self):
        while not self.pid_file.exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_an_interrupt_ends_the_case_and_is_passed_on_at_once(strike, pid_file):
    thread = threading.Thread(target=Interrupt(pid_file))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        strike("Hangs")
    thread.join()
    assert is_gone(pid_file)


def test_an_exception_of_stages_ends_the_case_and_is_passed_on(strike, pid_file):
    def stop(stage, done, total):
        if stage == "timing":  # by then the daemon is there
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        strike("LeavesDaemon", stages=stop)
    assert is_gone(pid_file)


def test_forty_cases_leave_memory_and_open_files_flat(strike):
    strike("ExitsWhenUnpickled")
    before = open_descriptors()
    for number in range(40):
        assert strike("ExitsWhenUnpickled").status == "crashed"
        if number == 10:  # by then every cache is warm
            resident = resident_kb()
    assert open_descriptors() == before
    assert resident_kb() - resident < 768
    assert [thread.name for thread in threading.enumerate() if "embedcore" in thread.name] == []


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_a_failed_start_of_a_child_is_retried_then_crashed(case, images, executor, monkeypatch):
    real, failures = child.forkserver_context, []

    def failing(times):
        if len(failures) < times:
            failures.append(1)
            raise ConnectionRefusedError("nobody listens")
        return real()

    monkeypatch.setattr(child, "forkserver_context", functools.partial(failing, 1))
    assert executor.run(case, images).status == "ok"
    monkeypatch.setattr(child, "forkserver_context", functools.partial(failing, 99))
    result = executor.run(case, images)
    assert result.status == "crashed"
    assert "no child process can be started: ConnectionRefusedError: nobody listens" in result.reason
