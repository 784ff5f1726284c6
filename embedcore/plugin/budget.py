"""``--embed-budget``: the time that a session may take, counted from pytest's start."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedcore.plugin.stash import OF_WORKERS

if TYPE_CHECKING:
    import pytest

    from embedcore.progress import Progress, Stages


class BudgetSpent(Exception):
    """The time is over; the case in hand has no result, a resumed run measures it."""


@dataclass(frozen=True)
class Budget:
    """``seconds`` from ``begin`` on; None is without end."""

    seconds: float | None
    begin: float = field(default_factory=time.monotonic)
    """A reading of ``time.monotonic``."""
    began: float = field(default_factory=time.time)
    """The same moment in seconds since the epoch, for other processes."""

    @classmethod
    def of_session(cls, seconds: float | None, config: pytest.Config) -> Budget:
        """The budget of the session that begins now; a worker of pytest-xdist counts from its controller's start."""
        from_controller = getattr(config, "workerinput", {}).get(OF_WORKERS)
        if from_controller is None:
            return cls(seconds)
        began = from_controller["began"]
        return cls(seconds, time.monotonic() - (time.time() - began), began)

    def left(self) -> float:
        """Seconds left; infinite without a budget."""
        return float("inf") if self.seconds is None else self.seconds - (time.monotonic() - self.begin)

    def within(self, progress: Progress) -> Progress:
        """``progress``, but with BudgetSpent once no time is left."""

        return functools.partial(self.within_stages(lambda stage, done, total: progress(done, total)), "")

    def within_stages(self, stages: Stages) -> Stages:
        """Return ``stages``, but with BudgetSpent once no time is left."""

        def checked(stage: str, done: int, total: int) -> None:
            if self.left() <= 0:
                raise BudgetSpent
            stages(stage, done, total)

        return checked
