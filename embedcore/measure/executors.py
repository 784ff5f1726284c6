"""Who runs a measurement: this process, or a fresh child of a forkserver which has torch and timm imported."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embedcore.forkserver import forkserver_context
from embedcore.images.workers import hidden_main
from embedcore.measure.measure import Images, attempt
from embedcore.results.result import Result

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from embedcore.measure.case import Case

Progress = Callable[[int, int], None]

STDERR_TAIL_LINES = 30
# How long a child that has closed its pipe may take to end by itself before its process group is killed.
EXIT_GRACE_S = 5.0


class Executor(Protocol):
    """Runs one case and always gives a result, whatever happens."""

    def run(self, case: Case, images: Images, progress: Progress | None = None) -> Result: ...


class InlineExecutor:
    """Measures in this process: for a debugger. A crash or a hang takes the session along."""

    def run(self, case: Case, images: Images, progress: Progress | None = None) -> Result:
        return attempt(case, images, progress)


class ChildExecutor:
    """Measures each case in a fresh child process, in a process group of its own.

    A crash, a hang beyond ``timeout_s`` or a kill becomes a result with status ``crashed`` or ``timeout``; whatever
    processes the case has started are gone afterwards.
    """

    def __init__(self, timeout_s: float = 3600.0) -> None:
        self.timeout_s = timeout_s

    def run(self, case: Case, images: Images, progress: Progress | None = None) -> Result:
        context = forkserver_context()
        receiver, sender = context.Pipe(duplex=False)
        begin = time.monotonic()
        with receiver, tempfile.TemporaryDirectory(prefix="embedcore-") as folder:
            output = Path(folder) / "output"
            child = context.Process(target=_measure_in_child, args=(sender, str(output), case, images), daemon=False)
            with hidden_main(keep=type(images.dataset.images).__module__ == "__main__"):
                child.start()
            sender.close()
            try:
                result = _receive(receiver, child, begin + self.timeout_s, progress)
                if result is None:
                    result = self._without_result(case, child, output, time.monotonic() - begin)
                else:
                    child.join(EXIT_GRACE_S)
                return result
            finally:
                _kill_group(child)
                child.join()
                child.close()

    def _without_result(self, case: Case, child: BaseProcess, output: Path, seconds: float) -> Result:
        """The result of a child that ended, or had to be ended, without sending one."""
        if child.exitcode is None:
            child.join(0 if seconds >= self.timeout_s else EXIT_GRACE_S)
        if child.exitcode is None:
            status, reason = "timeout", f"no result after {self.timeout_s:g} s (--embed-timeout)"
        else:
            status, reason = "crashed", f"the measuring process {exit_words(child.exitcode)}"
        return Result.unmeasured(
            case.model, family=case.family, status=status, reason=reason, detail=_tail(output), measured_s=seconds
        )


def exit_words(code: int) -> str:
    """An exit code of multiprocessing in words.

    >>> exit_words(-9), exit_words(3)
    ('was killed by SIGKILL', 'ended with exit code 3')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _receive(receiver: Connection, child: BaseProcess, deadline: float, progress: Progress | None) -> Result | None:
    """The result that the child sends, or None when it ends or the deadline passes without one."""
    while True:
        ready = wait([receiver, child.sentinel], max(0.0, deadline - time.monotonic()))
        if receiver not in ready:
            return None
        try:
            kind, payload = receiver.recv()
        except EOFError:
            return None
        if kind == "result":
            return Result.from_json(payload)
        if progress is not None:
            progress(*payload)


def _kill_group(child: BaseProcess) -> None:
    assert child.pid is not None
    # The child leads its own group; if it died or was caught before it could make one, there is only itself to kill.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()


def _tail(output: Path) -> str:
    if not output.exists():
        return ""
    return "\n".join(output.read_text(errors="replace").splitlines()[-STDERR_TAIL_LINES:])


def _measure_in_child(sender: Connection, output: str, case: Case, images: Images) -> None:
    """Runs in the child: everything printed goes to a file, of which the parent shows the end if the child dies."""
    import faulthandler
    import sys

    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    # Under pytest's capture the inherited text streams write elsewhere than to descriptors 1 and 2.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    faulthandler.enable()
    result = attempt(case, images, lambda done, total: sender.send(("progress", (done, total))))
    sender.send(("result", result.to_json()))
    sender.close()
