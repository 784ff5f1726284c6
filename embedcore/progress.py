"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` now and then, from the thread that waits for the work; may raise to end it."""

Stages = Callable[[str, int, int], None]
"""The same for work of several stages, ``stages(stage, done, total)``, each with a total of its own (0: there is no
telling). Those of a case are ``decoding``, ``downloading``, ``loading``, ``timing``, ``embedding`` and ``scoring``."""
