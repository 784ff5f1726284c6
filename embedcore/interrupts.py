"""Hold or ignore Ctrl-C during work that must not be interrupted, and treat SIGTERM as Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay the first Ctrl-C to the end of the block; a second one takes effect at once."""
    before, waiting = signal.getsignal(signal.SIGINT), False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal waiting
        if not waiting:
            waiting = True
            return
        waiting = False
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGINT)

    try:
        with _handled_by(note):
            yield
    finally:
        if waiting:
            signal.raise_signal(signal.SIGINT)


def interrupts_ignored() -> contextlib.AbstractContextManager[None]:
    """Ignore Ctrl-C in a short block, and in the child processes started in it, from their first instruction."""
    return _handled_by(signal.SIG_IGN)


@contextlib.contextmanager
def terminations_as_interrupts() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C in the block, also where Ctrl-C is ignored, as in background jobs of a shell script."""
    with contextlib.ExitStack() as stack:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            stack.enter_context(_handled_by(signal.default_int_handler))
        stack.enter_context(_handled_by(lambda *_: signal.raise_signal(signal.SIGINT), signal.SIGTERM))
        yield


@contextlib.contextmanager
def _handled_by(
    handler: Callable[[int, FrameType | None], Any] | signal.Handlers, number: signal.Signals = signal.SIGINT
) -> Iterator[None]:
    before = signal.getsignal(number)
    # Only the main thread gets signals, and a handler set outside Python could not be restored.
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
