"""The last of what a process prints, in bounded memory and none of the disk."""

from __future__ import annotations

TAIL_BYTES = 64 * 2**10
TAIL_LINES = 100  # what faulthandler says of several threads comes after the words of the fault
LINE_CHARACTERS = 500


class OutputTail:
    """Keeps the last ``limit`` bytes of what it is fed.

    >>> tail = OutputTail(limit=8)
    >>> tail.feed(b"first second third")
    >>> tail.text()
    'nd third'
    """

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._limit = limit
        self._kept = bytearray()

    def feed(self, piece: bytes) -> None:
        self._kept += piece[-self._limit :]
        if len(self._kept) > 2 * self._limit:  # seldom, so that bytes are not moved at every piece
            del self._kept[: -self._limit]

    def text(self, lines: int = TAIL_LINES) -> str:
        """The last lines as text: bytes that are not UTF-8 replaced, long lines cut."""
        kept = bytes(self._kept[-self._limit :]).decode(errors="replace").splitlines()[-lines:]
        return "\n".join(line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}…" for line in kept)
