"""The two processes of a case: one that measures, and its parent, which does nothing but see that nothing is left.

The supervisor is a child of the forkserver and the measuring process is a child of the supervisor. The supervisor
adopts whatever the measuring process leaves behind, wherever it has moved to, and knows how the measuring process ended
and how much memory it had, whatever it died of. It lives as long as its own parent, the session, holds the other end of
``control``: should the session be killed, all is over at once, even if the measuring process hangs in native code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from embedcore.measure import messages
from embedcore.measure.processes import (
    adopt_orphans,
    be_first_to_run_out_of_memory,
    descendants,
    die_with_parent,
    kill,
    kill_group,
)

# How long descendants that were killed may take to be gone; more only if one is stuck in the kernel.
KILL_GRACE_S = 5.0

_IDLE_S = 5.0
_MAXRSS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10

Send = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Ended:
    """How a measuring process ended."""

    exit_code: int
    """As multiprocessing counts: -9 is SIGKILL."""
    resident_mb: float
    """The most resident memory it had."""
    killed: bool
    """Whether the supervisor killed it, as it was told to."""
    left_behind: int
    """Processes that it left running and that had to be killed."""


def supervise(control: Connection, inbox: Connection, output: Connection, work: Callable[[Send], None]) -> None:
    """Run ``work(send)`` in a process of its own, with both its output streams going to ``output``.

    What it sends goes to ``inbox``. To ``control`` go the measuring process's id, at once, and how it ended, when
    nothing of it is left. Anything that is received from ``control``, its end included, ends it.
    """
    os.setsid()  # out of the terminal's foreground group: Ctrl-C is for the session, which then ends this one
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    adopt_orphans()
    supervisor = os.getpid()
    with _ChildSignals() as woken:
        pid = os.fork()
        if pid:
            inbox.close()
            _Supervisor(pid, control).watch(woken)
            return
    # From here on in the measuring process.
    control.close()
    die_with_parent(supervisor)
    os.setsid()
    be_first_to_run_out_of_memory()
    # Under pytest's capture the inherited text streams write elsewhere than to descriptors 1 and 2.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    work(lambda message: messages.send(inbox.fileno(), message))
    inbox.close()


class _ChildSignals:
    """A context in which the death of a child makes a socket readable."""

    def __enter__(self) -> socket.socket:
        self._ends = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)
        self._before = {signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None)}
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        return self._ends[0]

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for end in self._ends:
            end.close()


class _Supervisor:
    def __init__(self, measuring: int, control: Connection) -> None:
        self._measuring = measuring
        self._control = control
        self._exit_code: int | None = None
        self._resident_mb = 0.0

    def watch(self, woken: socket.socket) -> None:
        """Until the measuring process ends or is to be ended; returns when nothing of it is left."""
        self._tell({"pid": self._measuring})
        killed = False
        while self._exit_code is None and not killed:
            ready = wait([self._control, woken], _IDLE_S)
            killed = self._control in ready
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
            self._reap()
        ended = self._exit_code is not None
        others = self._end_all()
        if self._exit_code is not None:
            self._tell(
                {
                    "exit_code": self._exit_code,
                    "resident_mb": self._resident_mb,
                    "killed": killed and not ended,
                    "left_behind": others,
                }
            )
        self._control.close()

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the session may be dead, or not want to know
            messages.send(self._control.fileno(), message)

    def _reap(self) -> bool:
        """Take leave of every child that has ended; whether there are others."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._measuring:
                self._exit_code = os.waitstatus_to_exitcode(status)
                self._resident_mb = usage.ru_maxrss / _MAXRSS_PER_MB

    def _end_all(self) -> int:
        """Kill all descendants, over and over until none is left; gives how many besides the measuring process."""
        killed: set[int] = set()
        deadline = time.monotonic() + KILL_GRACE_S
        if sys.platform != "linux":  # where orphans are not adopted, and there is no /proc to find them in
            kill_group(self._measuring)
        while self._reap() and time.monotonic() < deadline:
            below = descendants(os.getpid())
            for pid in below:
                kill(pid)
            killed.update(below)
            time.sleep(0.002)
        return len(killed - {self._measuring})
