"""Messages from a child process to its parent: one JSON object a line.

Not pickle, and not multiprocessing's own framing: whatever the process sends, or does not send to its end, the parent
neither waits for the rest of it nor runs it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

# A result of fifty million queries is smaller; a process that sends more than this without an end of line has gone mad.
MAX_BYTES = 2**28


class GarbledMessageError(ValueError):
    """What was received is no message."""


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one message whole. Raises OSError where nobody reads any more."""
    unsent = memoryview(json.dumps(message).encode() + b"\n")
    while unsent:
        unsent = unsent[os.write(descriptor, unsent) :]


class Inbox:
    """Puts together messages from pieces as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """Whether part of a message has come and its end has not."""
        return bool(self._buffer)

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The messages that ``piece`` completes. Raises GarbledMessageError at what is no JSON object."""
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = bytes(self._buffer + end)
            self._buffer.clear()
            try:
                message = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise GarbledMessageError(f"{line[:40]!r}: {error}") from error
            if not isinstance(message, dict):
                raise GarbledMessageError(f"{line[:40]!r}: not a JSON object")
            yield message
        self._buffer += rest
        if len(self._buffer) > MAX_BYTES:
            raise GarbledMessageError(f"a message of more than {MAX_BYTES} bytes")
