"""``--embed-budget``: the time of a session, from pytest's start."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from embedcore.progress import Progress


class BudgetSpent(Exception):
    """The time is over; the case in hand has no result, a resumed run measures it."""


@dataclass(frozen=True)
class Budget:
    """``seconds`` from ``begin`` on, a reading of ``time.monotonic``; None is without end."""

    seconds: float | None
    begin: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds left; infinite without a budget."""
        return float("inf") if self.seconds is None else self.seconds - (time.monotonic() - self.begin)

    def within(self, progress: Progress) -> Progress:
        """``progress``, but with BudgetSpent once no time is left."""

        def checked(done: int, total: int) -> None:
            if self.left() <= 0:
                raise BudgetSpent
            progress(done, total)

        return checked
