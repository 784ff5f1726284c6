"""Messages from a child process to its parent: one JSON object a line.

Pickle and multiprocessing's framing are not used: whatever the process sends, or leaves incomplete, the parent
neither waits for the rest nor executes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from embedcore.errors import EmbedcoreError

# A result of fifty million queries is smaller; a longer line means that the process is broken.
MAX_BYTES = 2**28


class GarbledMessageError(EmbedcoreError):
    """Received data is not a message."""


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one whole message. Raises OSError if the reader has gone."""
    unsent = memoryview(json.dumps(message).encode() + b"\n")
    while unsent:
        unsent = unsent[os.write(descriptor, unsent) :]


class Inbox:
    """Assembles messages from the pieces received."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """Whether a message is incomplete."""
        return bool(self._buffer)

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yield the messages that ``piece`` completes. Raises GarbledMessageError for anything but a JSON object."""
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
