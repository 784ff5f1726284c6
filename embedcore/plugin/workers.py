"""Data shared between the processes of a pytest-xdist session, and ending the session early from any of them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from embedcore.plugin.stash import OF_WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedcore.results.runs import Worker


class Workers:
    """The running workers, as their controller knows them."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._first = ""

    def begin(self, worker: str, began: float, in_use: Iterable[str] = ()) -> dict[str, Any]:
        """Return the data that a worker needs as it begins.

        ``pid`` and ``began`` (seconds since the epoch) name the run and start the budget, so they are the same for all
        workers, also for one that replaces another. ``slot`` is the lowest number not used by a running worker; the
        first worker reports the notes common to all; ``in_use`` are runs that other sessions are writing to.
        """
        taken = set(self._slots.values())
        self._slots[worker] = next(number for number in range(len(taken) + 1) if number not in taken)
        self._first = self._first or worker
        return {
            "pid": os.getpid(),
            "began": began,
            "slot": self._slots[worker],
            "reports_notes": self._first == worker,
            "in_use": sorted(in_use),
        }

    def end(self, worker: str) -> None:
        """Free the slot of a worker."""
        self._slots.pop(worker, None)


def worker_of(config: pytest.Config) -> Worker:
    """Return the identity of this process among the session's workers."""
    from embedcore.results.runs import Worker, run_name

    input_ = getattr(config, "workerinput", None)
    if input_ is None:
        return Worker.alone()
    ours = input_[OF_WORKERS]
    name = re.sub(r"[^\w-]", "_", input_["workerid"])  # an id that the user chose may contain anything
    return Worker(run_name(ours["began"], ours["pid"]), name, frozenset(ours["in_use"]), ours["slot"])


def reports_notes(config: pytest.Config) -> bool:
    """Whether this process reports the notes common to all workers."""
    input_ = getattr(config, "workerinput", None)
    return input_ is None or bool(input_[OF_WORKERS]["reports_notes"])


def send_to_controller(config: pytest.Config, **values: Any) -> None:
    """Send values to the controller when this worker ends; do nothing in any other process."""
    if hasattr(config, "workeroutput"):
        config.workeroutput.setdefault(OF_WORKERS, {}).update(values)


def end_before_first_test(session: pytest.Session, why: str, code: pytest.ExitCode) -> None:
    """End a session that has run no test; if this is a worker, its controller reports why."""
    if hasattr(session.config, "workeroutput"):
        send_to_controller(session.config, stopped=(why, int(code)))
        session.items.clear()
    elif code == pytest.ExitCode.USAGE_ERROR:
        raise pytest.UsageError(why)
    else:
        pytest.exit(why, returncode=code)


def end_in_test(session: pytest.Session, why: str, code: pytest.ExitCode) -> NoReturn:
    """End the session in the middle of a test, which has no result.

    A worker must finish its test first: pytest-xdist takes one that exits within a test as crashed.
    """
    if not hasattr(session.config, "workeroutput"):
        pytest.exit(why, returncode=code)
    send_to_controller(session.config, stopped=(why, int(code)))
    session.shouldstop = why
    if code == pytest.ExitCode.USAGE_ERROR:
        pytest.fail(why, pytrace=False)
    pytest.skip(why)
