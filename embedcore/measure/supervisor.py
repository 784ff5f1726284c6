"""The two processes of a case: one that measures, and its supervisor, which makes sure that both end.

The supervisor is a child of the forkserver, and the measuring process is a child of the supervisor. The supervisor
adopts all orphans of the measuring process, and knows its exit code and peak memory, whatever it died of. It ends when
the session closes its end of ``control``: if the session is killed, both processes end at once, even if the measuring
process hangs in native code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from embedcore import messages
from embedcore.forkserver import adopt_environment

# Seconds to wait for killed descendants; they take longer only if stuck in the kernel.
KILL_GRACE_S = 5.0

# From linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

# The kernel's out-of-memory killer treats a measuring process as if it used half the machine's memory more.
_OOM_SCORE_ADJ = 500

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 2**10

Send = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Ended:
    """How a measuring process ended."""

    exit_code: int
    """As in multiprocessing: -9 is SIGKILL."""
    resident_mb: float
    """Peak resident memory, mapped files included, in MB of 10^6 bytes."""
    left_behind: int
    """Number of processes that it left running, which were killed."""


def supervise(
    control: Connection,
    inbox: Connection,
    output: Connection,
    environment: Mapping[str, str],
    work: Callable[[Send], None],
) -> None:
    """Run ``work(send)`` in a process of its own with this environment; both its output streams go to ``output``.

    Its messages go to ``inbox``. The supervisor sends the measuring process's id to ``control`` at once, and how it
    ended when all its processes are gone. Anything received from ``control``, also its closing, ends the process.
    """
    adopt_environment(environment)
    os.setsid()  # leave the terminal's foreground group: Ctrl-C is for the session, which then ends this one
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # to adopt the orphans
    supervisor = os.getpid()
    with _deaths() as deaths:
        pid = os.fork()
        if pid:
            inbox.close()
            _Supervisor(pid).watch(control, deaths)
            return
    # From here on this is the measuring process.
    control.close()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)
    os.setsid()
    with contextlib.suppress(OSError):
        path = Path("/proc/self/oom_score_adj")
        path.write_text(str(max(_OOM_SCORE_ADJ, int(path.read_text()))))
    # Under pytest's capture the inherited text streams do not write to descriptors 1 and 2.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    work(lambda message: messages.send(inbox.fileno(), message))
    inbox.close()


@contextlib.contextmanager
def _deaths() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable when a child has ended."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    with reader, writer:
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)


class _Supervisor:
    def __init__(self, measuring: int) -> None:
        self._measuring = measuring
        self._exit_code: int | None = None
        self._resident_mb = 0.0

    def watch(self, control: Connection, deaths: socket.socket) -> None:
        """Wait until the measuring process ends or has to end; return when all its processes are gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # the session may be dead, or no longer listening
            messages.send(control.fileno(), {"pid": self._measuring})
        while self._exit_code is None:
            ready = wait([control, deaths])
            if control in ready:
                break
            deaths.recv(4096)
            self._reap()
        others = self._end_all()
        if self._exit_code is not None:
            with contextlib.suppress(OSError):
                messages.send(control.fileno(), asdict(Ended(self._exit_code, self._resident_mb, others)))
        control.close()

    def _reap(self) -> bool:
        """Reap exited children; return whether any are left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._measuring:
                self._exit_code = os.waitstatus_to_exitcode(status)
                self._resident_mb = usage.ru_maxrss * _MAXRSS_BYTES / 1e6

    def _end_all(self) -> int:
        """Kill all descendants until none is left; return how many there were besides the measuring process."""
        killed: set[int] = set()
        deadline = time.monotonic() + KILL_GRACE_S
        if sys.platform != "linux":  # orphans are not adopted there
            kill_group(self._measuring)
        while self._reap() and time.monotonic() < deadline:
            below = descendants(os.getpid())
            for pid in below:
                kill(pid)
            killed.update(below)
            time.sleep(0.002)
        return len(killed - {self._measuring})


def descendants(ancestor: int) -> list[int]:
    """Return the process ids of all descendants, zombies included; none if the process does not exist.

    An orphan is a descendant of the nearest ancestor that adopts orphans.
    """
    try:
        return [process.pid for process in psutil.Process(ancestor).children(recursive=True)]
    except psutil.Error:  # it has exited
        return []


def kill(pid: int) -> None:
    """Send SIGKILL to a process, which may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Send SIGKILL to the process group of ``leader``, which may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_tree(root: int) -> None:
    """Send SIGKILL to a process, all its descendants and their process groups."""
    for pid in (root, *descendants(root)):
        kill_group(pid)
        kill(pid)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
