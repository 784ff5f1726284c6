"""From an exception to the status of a case."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from embedcore.embed.memory import is_out_of_memory
from embedcore.errors import (
    EmbedcoreError,
    HubUnreachable,
    UnsupportedModel,
    UsageError,
    WeightsGated,
    WeightsUnavailable,
)
from embedcore.results.result import Result

if TYPE_CHECKING:
    from embedcore.measure.case import Case


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


def failure(
    case: Case, error: BaseException, *, peak_memory_mb: float | None = None, measured_s: float = 0.0
) -> Result:
    """The result of a case that an exception has ended; peak memory, where it is known, stands in the reason too."""
    peak = "" if peak_memory_mb is None else f"; peak memory {peak_memory_mb:.0f} MB"
    return Result.make(
        case.model,
        family=case.family,
        status=status_of(error),
        reason=f"{reason_of(error)}{peak}",
        detail=detail_of(error),
        unreachable=isinstance(error, HubUnreachable),
        peak_memory_mb=peak_memory_mb,
        measured_s=measured_s,
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


def detail_of(error: BaseException) -> str:
    """The traceback, for a failure that nobody planned; "" for embedcore's own one-line errors."""
    if isinstance(error, EmbedcoreError) and not isinstance(error, UsageError):
        return ""
    return "".join(traceback.format_exception(error))
