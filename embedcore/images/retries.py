"""Errors that pass by themselves: what they are, and trying again."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

PAUSES_S = (0.5, 2.0, 5.0)
"""Before the second try, the third and the fourth, which is the last."""

_TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EINTR", "EAGAIN", "EBUSY", "ENOMEM", "ENOBUFS", "EMFILE", "ENFILE"),
        *("ESTALE", "ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENOTCONN", "EREMOTEIO"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
)

_Result = TypeVar("_Result")


def is_transient(error: BaseException) -> bool:
    """Whether an error is of the machine at this moment, such as no memory or a lost file server, not of a file."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _TRANSIENT)


def retried(action: Callable[[], _Result]) -> _Result:
    """Return ``action()``; after a transient error try again, up to three times with pauses."""
    for pause in PAUSES_S:
        try:
            return action()
        except (OSError, MemoryError) as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return action()
