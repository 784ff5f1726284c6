"""Executors: run a case in this process, or in a fresh child of a forkserver that has imported torch and timm."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import pickle
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from embedcore.embed.memory import bound_memory, is_bounded
from embedcore.errors import option
from embedcore.forkserver import StartError, exit_words, forkserver_context
from embedcore.measure.case import Case
from embedcore.measure.child import Child, Heard
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.measure import attempt
from embedcore.measure.oom_killer import MemoryWatch, ran_out
from embedcore.measure.outcome import facts_of_case, reason_of
from embedcore.measure.supervisor import Send
from embedcore.measure.timing_process import attempt_timing
from embedcore.messages import GarbledMessageError
from embedcore.plain import counted
from embedcore.progress import Stages
from embedcore.results.process import TimingProcess
from embedcore.results.result import InvalidResultError, Result

Task = Callable[[Case, CaseInputs, Stages], TimingProcess | Result]

SEND_EVERY_S = 0.2
"""Seconds between two progress messages of a measuring process."""

SILENT_S = 60.0
"""A download that sends no progress message for this long counts towards the case's time limit again."""

UNSENDABLE = (
    "there is no room for a pixel store, and these images cannot be sent to another process: free some disk space, "
    f"use another folder ({option('cache')}), or measure in this process ({option('isolation', 'none')})"
)


class Ahead:
    """A measuring process of the next case, which loads the model while the case before is scored.

    It waits for the pixels before it measures anything. Raises StartError.
    """

    def __init__(self, case: Case, inputs: CaseInputs) -> None:
        """``inputs``: those of the case, without pixels."""
        self.case, self.inputs = case, inputs
        receiver, self._sender = forkserver_context().Pipe(duplex=False)
        pickled = pickle.dumps((case, inputs))
        with receiver:
            work = functools.partial(_work, pickled, attempt, receiver)
            self.child = Child(work, keep_main=b"__main__" in pickled)

    def is_for(self, case: Case, inputs: CaseInputs) -> bool:
        """Whether it measures this case, with these inputs besides the pixels."""
        same_images = self.inputs.truth.fingerprint == inputs.truth.fingerprint
        return self.case == case and self.inputs.located == inputs.located and same_images

    def start(self, inputs: CaseInputs) -> None:
        """Send the pixels and distractors, after which the process measures the case."""
        with self._sender, contextlib.suppress(OSError):  # if it has ended, its messages say why
            self._sender.send_bytes(pickle.dumps((inputs.pixels, inputs.distractors)))

    def close(self) -> None:
        """End the process."""
        self._sender.close()
        with self.child:
            pass


class InlineExecutor:
    """Runs cases in this process, for a debugger. A crash or hang ends the session, and memory is not limited."""

    def run(self, case: Case, inputs: CaseInputs, stages: Stages | None = None) -> Result:
        return attempt(case, inputs, stages)

    def time(self, case: Case, inputs: CaseInputs, stages: Stages | None = None) -> TimingProcess | Result:
        return attempt_timing(case, inputs, stages)


class ChildExecutor:
    """Runs each case in a fresh child process.

    A crash or kill is a result with status ``crashed``, a hang beyond ``timeout_s`` seconds ``timeout``, a death from
    lack of memory ``oom``; its reason has the signal and the peak memory, its detail the last lines of output. All
    processes that the case started, daemons included, are gone afterwards, also if the session itself is killed.
    Downloads have limits of their own and do not count towards ``timeout_s``. ``stages`` is called repeatedly, also
    without news, so that a clock can advance; an exception in it, or Ctrl-C, ends the case and propagates.
    """

    def __init__(
        self,
        timeout_s: float = 3600.0,
        *,
        ahead: Ahead | None = None,
        scoring: Callable[[], None] = lambda: None,
    ) -> None:
        """``ahead``: a process that was started for the case to run; ``scoring`` is called after its last round."""
        self.timeout_s = timeout_s
        self._ahead, self._scoring = ahead, scoring

    def run(self, case: Case, inputs: CaseInputs, stages: Stages | None = None) -> Result:
        was_ahead = self._ahead is not None
        result = self._run(attempt, case, inputs, stages)
        assert isinstance(result, Result)
        if was_ahead and result.status in ("crashed", "oom"):  # perhaps for lack of memory beside the case before
            return self.run(case, inputs, stages)
        return result

    def time(self, case: Case, inputs: CaseInputs, stages: Stages | None = None) -> TimingProcess | Result:
        return self._run(attempt_timing, case, inputs, stages)

    def _run(self, task: Task, case: Case, inputs: CaseInputs, stages: Stages | None) -> TimingProcess | Result:
        begin = time.monotonic()
        results: list[TimingProcess | Result] = []
        downloads = Downloads()

        def listener(message: dict[str, Any]) -> bool:
            match message:
                case {"result": dict(fields)}:
                    try:
                        results.append(Result.from_json(fields))
                    except InvalidResultError as error:
                        raise GarbledMessageError(str(error)) from error
                case {"process": dict(fields)}:
                    try:
                        results.append(msgspec.convert(fields, TimingProcess))
                    except msgspec.ValidationError as error:
                        raise GarbledMessageError(str(error)) from error
                case {"progress": [str(stage), int(done), int(total)]}:
                    is_new = not reached or reached[0][0] != stage
                    reached[:] = [(stage, done, total)]
                    downloads.note(stage)
                    report()
                    if stage == "scoring" and is_new:
                        self._scoring()
                case _:
                    raise GarbledMessageError(f"neither a result nor progress: {str(message)[:80]}")
            return bool(results)

        reached: list[tuple[str, int, int]] = []

        def report() -> None:
            if stages is not None and reached:
                stages(*reached[0])

        watch = MemoryWatch()

        def tick() -> None:
            watch.sample()
            report()

        ahead, self._ahead = self._ahead, None
        try:
            # Unpickled in the measuring process itself, where it can do no harm.
            pickled = pickle.dumps((case, inputs))
        except Exception as error:  # of a user's image source, which is only sent if pixels are streamed
            if ahead is not None:
                ahead.close()
            return _unmeasured(case, "error", f"{UNSENDABLE}: {reason_of(error)}", seconds=0.0)
        keep_main = b"__main__" in pickled
        if ahead is not None and keep_main:  # it could not unpickle these pixels
            ahead.close()
            ahead = None
        work = functools.partial(_work, pickled, task, None)
        try:
            with Child(work, keep_main=keep_main) if ahead is None else ahead.child as child:
                if ahead is not None:
                    ahead.start(inputs)
                heard = child.listen(self.timeout_s, listener, tick, downloads.seconds)
                vanished = heard.ended is None and not heard.late
                supervisor_code = child.supervisor_exit_code() if vanished else None
        except StartError as error:
            return _unmeasured(case, "crashed", str(error), seconds=time.monotonic() - begin)
        if results:
            behind = heard.ended.left_behind if heard.ended is not None else 0
            result = results[0]
            if not behind or isinstance(result, TimingProcess):
                return result
            note = f"{counted(behind, 'process', 'processes')} left running by the case had to be killed"
            return msgspec.structs.replace(result, detail=f"{result.detail}\n{note}".lstrip())
        status, reason = self._diagnosis(case, heard, watch, supervisor_code)
        if heard.ended is not None:
            reason += f"; peak memory {heard.ended.resident_mb:.0f} MB resident"
        return _unmeasured(case, status, reason, detail=heard.output, seconds=time.monotonic() - begin)

    def _diagnosis(self, case: Case, heard: Heard, watch: MemoryWatch, supervisor_code: int | None) -> tuple[str, str]:
        """Return status and reason of a case whose measuring process ended, or was killed, without a result."""
        if heard.garbled:
            return "crashed", f"the measuring process sent an invalid message and was killed: {heard.garbled}"
        if heard.late:
            return "timeout", f"no result after {self.timeout_s:g} s ({option('timeout')})"
        if heard.silent:
            return "crashed", "the measuring process closed its pipe without a result, did not exit and was killed"
        if heard.ended is None:
            return "crashed", f"the supervisor of the measuring process {exit_words(supervisor_code)}"
        code = heard.ended.exit_code
        if code == -signal.SIGKILL and watch.killer_struck:
            return "oom", "the measuring process was killed by the kernel's out-of-memory killer (SIGKILL)"
        words = f"the measuring process {exit_words(code)}"
        if ran_out(code, heard.output, limited=case.memory_limit is not None):
            return "oom", f"{words} for lack of memory"
        if code == -signal.SIGKILL and watch.nearly_exhausted:
            words += ", most likely for lack of memory: the machine's was nearly exhausted"
        return "crashed", words + (" in the middle of a message" if heard.cut_short else "")


class Downloads:
    """Seconds that a measuring process has spent on downloads, according to its progress messages."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = 0.0
        self._last: float | None = None

    def note(self, stage: str) -> None:
        """Register a progress message of that stage."""
        self._before = self.seconds()
        self._last = self._clock() if stage == "downloading" else None

    def seconds(self) -> float:
        """Return the seconds so far; time without a message counts only up to SILENT_S."""
        return self._before if self._last is None else self._before + min(self._clock() - self._last, SILENT_S)


def _work(pickled: bytes, task: Task, pixels: Connection | None, send: Send) -> None:
    """Run the task in this measuring process, and send what it returns.

    ``pixels``: where the pixel store arrives, if the process was started ahead.
    """
    faulthandler.enable(all_threads=False)  # the read-ahead thread is not of interest
    case, inputs = pickle.loads(pickled)
    if pixels is not None:
        inputs = dataclasses.replace(inputs, receive_pixels=lambda: pickle.loads(pixels.recv_bytes()))
    if case.memory_limit is not None and is_bounded(case.where):
        bound_memory(case.memory_limit)
    done = task(case, inputs, _throttled(send))
    send({"process": msgspec.to_builtins(done)} if isinstance(done, TimingProcess) else {"result": done.to_json()})


def _throttled(send: Send) -> Stages:
    """Return a callback that sends the first and last step of a stage, and a few of the others per second."""
    last_sent: tuple[str, float] = "", 0.0

    def stages(stage: str, done: int, total: int) -> None:
        nonlocal last_sent
        now = time.monotonic()
        if stage != last_sent[0] or done == total or now - last_sent[1] >= SEND_EVERY_S:
            last_sent = stage, now
            send({"progress": [stage, done, total]})

    return stages


def _unmeasured(case: Case, status: str, reason: str, *, seconds: float, detail: str = "") -> Result:
    facts = facts_of_case(case)
    return Result.make(case.model, **facts, status=status, reason=reason, detail=detail, measured_s=seconds)
