"""The session's side of a measuring process: start it, receive its messages, end it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from embedcore.forkserver import child_environment, forkserver_context, start_surely
from embedcore.images.workers import hidden_main
from embedcore.measure.supervisor import KILL_GRACE_S, Ended, Send, kill_group, kill_tree, supervise
from embedcore.messages import GarbledMessageError, Inbox, send

# Seconds that a process may take to exit after it has sent its result or closed a pipe.
EXIT_GRACE_S = 5.0

# Number of bytes kept from the end of its output.
TAIL_BYTES = 64 * 2**10
TAIL_LINES = 30
LINE_CHARACTERS = 500

_TICK_S = 0.5
_PIECE = 2**16


@dataclass
class Heard:
    """How a measuring process ended, as far as the session knows.

    ``ended``: None if the supervisor could not report it. ``output``: the last lines that it printed. It was killed
    because its time was over (``late``), because it had closed its pipe but did not exit (``silent``), or because it
    had sent an invalid message (``garbled``). ``cut_short``: the last message is incomplete.
    """

    ended: Ended | None = None
    output: str = ""
    late: bool = False
    silent: bool = False
    garbled: str = ""
    cut_short: bool = False


Listener = Callable[[dict[str, Any]], bool]
"""Called with each message; returns whether it is the last one. Raises GarbledMessageError for an invalid one."""


class Child:
    """A measuring process and its supervisor; as a context manager it ends both on exit."""

    def __init__(self, work: Callable[[Send], None], *, keep_main: bool = False) -> None:
        """Start ``work(send)``, which must be picklable, in a process of its own.

        ``keep_main``: see ``hidden_main``. Raises StartError.
        """
        self._measuring: int | None = None
        self._ended: Ended | None = None
        start_surely(lambda: self._start(work, keep_main))

    def _start(self, work: Callable[[Send], None], keep_main: bool) -> None:
        context = forkserver_context()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            pairs = context.Pipe(duplex=True), context.Pipe(duplex=False), context.Pipe(duplex=False)
            for own, other in pairs:
                ours.enter_context(own)
                theirs.enter_context(other)
            # The supervisor ends when this end of `control` closes, so no other process may inherit it.
            (self._control, control), (self._inbox, inbox), (self._output, output) = pairs
            # Not a daemon: multiprocessing does not let those have children.
            self._process: BaseProcess = context.Process(
                target=supervise,
                args=(control, inbox, output, child_environment(), work),
                name="embedcore-measure",
                daemon=False,
            )
            with hidden_main(keep=keep_main):
                self._process.start()
            ours.pop_all()

    def listen(
        self,
        timeout_s: float,
        listener: Listener,
        tick: Callable[[], None],
        uncounted: Callable[[], float] = lambda: 0.0,
    ) -> Heard:
        """Receive messages until the process has ended; kill it after ``timeout_s`` seconds.

        ``uncounted`` returns the seconds so far that do not count towards the limit. ``tick`` is called about every
        half second. Exceptions of ``listener`` and ``tick``, and KeyboardInterrupt, propagate.
        """

        def now() -> float:
            return time.monotonic() - uncounted()

        heard = Heard()
        printed, inbox, control = b"", Inbox(), Inbox()
        deadline, next_tick = now() + timeout_s, 0.0
        told_to_end = complete = False
        ends = [self._control, self._inbox, self._output]
        while ends:
            remaining = deadline - now()
            if remaining <= 0:
                if told_to_end or self._control not in ends:
                    break
                heard.silent = not complete and self._inbox not in ends
                heard.late = not complete and not heard.silent
            if remaining <= 0 or (heard.garbled and not told_to_end):
                self._request_end()
                told_to_end, deadline = True, now() + KILL_GRACE_S + 1
                continue
            ready = cast("list[Connection]", wait(ends, min(remaining, _TICK_S)))
            if time.monotonic() >= next_tick:
                tick()
                next_tick = time.monotonic() + _TICK_S
            for end in ready:
                piece = _read(end)
                if not piece:
                    ends.remove(end)
                elif end is self._output:
                    printed = (printed + piece)[-TAIL_BYTES:]
                elif end is self._control:
                    for message in control.feed(piece):
                        if "pid" in message:
                            self._measuring = message["pid"]
                        else:
                            self._ended = Ended(**message)
                elif not complete and not heard.garbled:
                    try:
                        complete = any(listener(message) for message in inbox.feed(piece))
                    except GarbledMessageError as error:
                        heard.garbled = str(error)
                if (complete or end not in ends) and end is not self._output and not told_to_end:
                    deadline = min(deadline, now() + EXIT_GRACE_S)
        heard.ended, heard.output = self._ended, last_lines(printed)
        heard.cut_short = not complete and inbox.pending
        return heard

    def _request_end(self) -> None:
        with contextlib.suppress(OSError):
            send(self._control.fileno(), {"end": True})

    def supervisor_exit_code(self) -> int | None:
        """Return the supervisor's exit code; None if it is running or the code is not known."""
        self._process.join(EXIT_GRACE_S)
        # multiprocessing reports 255 if the forkserver, which would know, is dead too.
        return None if self._process.exitcode == 255 else self._process.exitcode

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._request_end()
        for end in (self._control, self._inbox, self._output):
            end.close()
        if self._ended is None and self._measuring is not None:
            kill_group(self._measuring)
        self._process.join(KILL_GRACE_S + 1)
        if self._process.exitcode is None and self._process.pid is not None:
            kill_tree(self._process.pid)
            self._process.join(KILL_GRACE_S)
        if self._process.exitcode is not None:
            self._process.close()


def _read(end: Connection) -> bytes:
    """Read what is available, at least one byte; b"" at the end."""
    try:
        return os.read(end.fileno(), _PIECE)
    except OSError:  # the other side has exited
        return b""


def last_lines(printed: bytes) -> str:
    """Return the last lines as text; bytes that are not UTF-8 are replaced, long lines cut."""
    lines = printed.decode(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}…" for line in lines)
