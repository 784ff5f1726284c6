"""Two processes that work in turn, so that neither disturbs the other and both see the same state of the machine.

A token, one byte, goes to and fro between two FIFOs: who has it works, who has not waits. Whoever started both puts the
first token into one of the FIFOs, and releases a process whose partner is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TOKEN, _RELEASE = b"t", b"r"


class Turns:
    """One of the two. Opened for reading and writing, a FIFO neither blocks nor breaks when the other end is gone."""

    def __init__(self, own: str, other: str) -> None:
        """``own``: path of the FIFO that the token comes from; ``other``: of the one that it goes to."""
        self._own, self._other = (os.open(path, os.O_RDWR) for path in (own, other))
        self._alone = False

    def wait(self) -> None:
        """Until it is our turn; for ever after a release, at once."""
        if not self._alone:
            self._alone = os.read(self._own, 1) == _RELEASE

    def _pass_on(self) -> None:
        os.write(self._other, _TOKEN)

    def each(self, rounds: int) -> Iterator[int]:
        """Numbers of rounds, each when it is our turn. The token is ours before and after, and the other has made as
        many rounds when this ends."""
        for number in range(rounds):
            self._pass_on()
            self.wait()
            yield number
        self._pass_on()
        self.wait()
        self._pass_on()


def start(path: Path) -> None:
    """Give the first turn to the process whose own FIFO this is."""
    _put(path, _TOKEN)


def release(path: Path) -> None:
    """Let the process whose own FIFO this is go on alone."""
    _put(path, _RELEASE)


def _put(path: Path, byte: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, byte)
    finally:
        os.close(descriptor)
