"""Ctrl-C that waits for a moment when nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """A block in which the first Ctrl-C takes effect at the end; a second one takes effect at once."""
    before = signal.getsignal(signal.SIGINT)
    # Signals arrive in the main thread only, and a handler that is not Python's could not be put back.
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal waiting
        if not waiting:
            waiting = True
            return
        waiting = False
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """A short block whose child processes ignore Ctrl-C from their first instruction; one that comes in the block
    itself is lost."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():  # as above
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
