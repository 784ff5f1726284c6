"""Temporary errors and retries."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

PAUSES_S = (0.5, 2.0, 5.0)
"""Pauses before the second, third and fourth try, which is the last."""

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
    """Return whether an error may be temporary, such as no memory or a lost file server."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _TRANSIENT)


def retried(action: Callable[[], _Result]) -> _Result:
    """Return ``action()``; retry after transient errors, up to three times with pauses."""
    for pause in PAUSES_S:
        try:
            return action()
        except (OSError, MemoryError) as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return action()
