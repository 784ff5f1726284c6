"""Progress callbacks for long-running work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` from time to time, in the thread that waits for the work; may raise StopWork."""

Stages = Callable[[str, int, int], None]
"""The same for work in several stages, ``stages(stage, done, total)``, each with a total of its own (0 if unknown).
Those of a case are ``decoding``, ``downloading``, ``loading``, ``timing``, ``embedding`` and ``scoring``."""


class StopWork(Exception):
    """Raised by a progress callback to stop the work; passed on to the caller, never turned into a failure."""
