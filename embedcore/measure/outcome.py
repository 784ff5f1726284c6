"""From an exception to the status of a case."""

from __future__ import annotations

import traceback

from embedcore.embed.memory import is_out_of_memory
from embedcore.errors import EmbedcoreError, UnsupportedModel, UsageError, WeightsGated, WeightsUnavailable


class NotFiniteError(EmbedcoreError):
    """Embeddings hold NaN or infinity, or one of them is zero (status ``nan``)."""


class TooLargeError(EmbedcoreError):
    """The model has more parameters than were asked for (status ``too-large``)."""


_STATUS_OF: tuple[tuple[type[BaseException], str], ...] = (
    (WeightsUnavailable, "no-weights"),
    (WeightsGated, "gated"),
    (UnsupportedModel, "unsupported"),
    (TooLargeError, "too-large"),
    (NotFiniteError, "nan"),
)


def status_of(error: BaseException) -> str:
    """The status that an exception of a measurement stands for; ``error`` for one that nobody planned."""
    for kind, status in _STATUS_OF:
        if isinstance(error, kind):
            return status
    return "oom" if is_out_of_memory(error) else "error"


def reason_of(error: BaseException) -> str:
    """One line for people: embedcore's own messages as they are, others with the name of their exception."""
    text = " ".join(str(error).split())
    if isinstance(error, EmbedcoreError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def with_peak(reason: str, peak_memory_mb: float | None) -> str:
    """A reason with the peak memory behind it, where that is known.

    >>> with_peak("the measuring process was killed by SIGKILL", 812.4)
    'the measuring process was killed by SIGKILL; peak memory 812 MB'
    """
    return reason if peak_memory_mb is None else f"{reason}; peak memory {peak_memory_mb:.0f} MB"


def detail_of(error: BaseException) -> str:
    """The traceback, for a failure that nobody planned; "" for embedcore's own one-line errors."""
    if isinstance(error, EmbedcoreError) and not isinstance(error, UsageError):
        return ""
    return "".join(traceback.format_exception(error))
