"""The timing of a case in one fresh process, with readings that tell a slower model from a slower machine."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """Timing rounds, each a forward pass of a batch, with the reference kernel beside them."""

    durations: tuple[float, ...] = ()
    """Seconds of each round."""
    reference: tuple[float, ...] = ()
    """Seconds of the reference kernel after each round, on the device of the case: a matrix product and a copy of fixed
    size."""
    reference_copy: tuple[float, ...] = ()
    """Seconds of its copy alone."""
    crowded: float | None = None
    """Contention during these rounds; see `Result.crowded`."""


class Pinned(Rounds, frozen=True, kw_only=True):
    """Timing rounds with one thread that is pinned to a core of the processor.

    On a quiet machine they repeat within about 1 % from process to process, those of all threads within about 10 %.
    """

    core: int
    images: _Count
    """Images of a round."""


class TimingProcess(Rounds, frozen=True, kw_only=True):
    """One fresh process that timed the forward pass of a case, with all threads."""

    started: float
    """Seconds since the epoch."""
    stolen: float | None = None
    """See `Result.stolen`."""
    pinned: Pinned | None = None
    """On the CPU, where a thread can be pinned to a core."""
    clock_mhz: float | None = None
    """On a card: its clock after the rounds."""
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    """On a card: why its clock was reduced."""
    other_processes: int | None = None
    """On a card: number of other processes that used it."""
