"""Interleaving: two processes alternate timing rounds, so that both measure the machine in the same state.

A token, one byte, is passed between two FIFOs; the process that has it works, the other one waits. The parent puts the
first token into one of the FIFOs, and releases a process whose partner has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TOKEN, _RELEASE = b"t", b"r"


class Interleaving:
    """One of the processes. A FIFO opened for reading and writing neither blocks nor breaks if the other end closes."""

    def __init__(self, own: str, other: str) -> None:
        """``own``: path of the FIFO to receive the token from; ``other``: of the one to pass it to."""
        self._own, self._other = (os.open(path, os.O_RDWR) for path in (own, other))
        self._alone = False

    def wait(self) -> None:
        """Wait for the token; after a release return at once."""
        if not self._alone:
            self._alone = os.read(self._own, 1) == _RELEASE

    def _pass_on(self) -> None:
        os.write(self._other, _TOKEN)

    def each(self, rounds: int) -> Iterator[int]:
        """Yield the number of each round when this process has the token, which it must have at the start.

        At the end it waits until the other process has made as many rounds, and passes the token on.
        """
        for number in range(rounds):
            self._pass_on()
            self.wait()
            yield number
        self._pass_on()
        self.wait()
        self._pass_on()


def start(path: Path) -> None:
    """Give the first token to the process that receives from this FIFO."""
    _put(path, _TOKEN)


def release(path: Path) -> None:
    """Let the process that receives from this FIFO continue alone."""
    _put(path, _RELEASE)


def _put(path: Path, byte: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, byte)
    finally:
        os.close(descriptor)
