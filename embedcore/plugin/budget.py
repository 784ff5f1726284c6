"""``--embed-budget``: the time that a session may take, counted from pytest's start."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from embedcore.plugin.stash import OF_WORKERS
from embedcore.progress import Stages, StopWork


class BudgetSpent(StopWork):
    """No time is left; the case in progress has no result, and a resumed run measures it."""


@dataclass(frozen=True)
class Budget:
    """``seconds`` from ``begin`` on; None is unlimited."""

    seconds: float | None
    begin: float = field(default_factory=time.monotonic)
    """A reading of ``time.monotonic``."""
    began: float = field(default_factory=time.time)
    """The same moment in seconds since the epoch, for other processes."""

    @classmethod
    def of_session(cls, seconds: float | None, config: pytest.Config) -> Budget:
        """Return the budget of the session that begins now; a worker counts from its controller's start."""
        from_controller = getattr(config, "workerinput", {}).get(OF_WORKERS)
        if from_controller is None:
            return cls(seconds)
        began = from_controller["began"]
        return cls(seconds, time.monotonic() - (time.time() - began), began)

    def left(self) -> float:
        """Return the seconds left; infinite without a budget."""
        return float("inf") if self.seconds is None else self.seconds - (time.monotonic() - self.begin)

    def within(self, stages: Stages) -> Stages:
        """Return ``stages``, raising BudgetSpent once no time is left."""

        def checked(stage: str, done: int, total: int) -> None:
            if self.left() <= 0:
                raise BudgetSpent
            stages(stage, done, total)

        return checked
