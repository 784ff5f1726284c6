"""Content digests of many images in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class Digests(Sequence[str]):
    """SHA-256 digests, in hexadecimal as a sequence and 32 bytes each in memory."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self.rows = rows
        """uint8 [n, 32], C-contiguous."""

    @classmethod
    def of(cls, digests: Sequence[str]) -> Digests:
        """Return these digests, which are in hexadecimal."""
        return cls(np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice | NDArray[np.int64]) -> Digests: ...
    def __getitem__(self, index: Any) -> str | Digests:
        rows = self.rows[index]
        return rows.tobytes().hex() if rows.ndim == 1 else Digests(np.ascontiguousarray(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return (row.tobytes().hex() for row in self.rows)


def numbered(digests: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each content, equal for equal digests: int64 [n].

    >>> numbered(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    keys = digests.rows.view("S32") if isinstance(digests, Digests) else np.array(digests, str)
    return np.unique(keys, return_inverse=True)[1].reshape(-1)
