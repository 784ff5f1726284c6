"""What the plugin tells the workers of pytest-xdist, what they tell at their end, and how a session is ended early."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from embedcore.plugin.stash import BUDGET, COLLECTOR, EMPTY_SHARD, FIRST_TO_TELL, OF_WORKERS, OPTIONS, SLOTS, STOPPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedcore.results.books import Place


def worker_input(node: Any) -> dict[str, Any]:
    """What a worker has to know before it begins; called by the controller for each worker that it starts.

    ``pid`` and ``began`` (seconds since the epoch) name the run and start the budget, so they are the same for all
    workers, also for one that replaces another. ``slot`` is the lowest number that no running worker has.
    """
    config = node.config
    slots = config.stash.setdefault(SLOTS, {})
    slot = next(number for number in range(len(slots) + 1) if number not in slots.values())
    slots[node.gateway.id] = slot
    tells = FIRST_TO_TELL not in config.stash
    config.stash.setdefault(FIRST_TO_TELL, node.gateway.id)
    return {
        "pid": os.getpid(),
        "began": config.stash[BUDGET].began,
        "slot": slot,
        "tells": tells,
        "in_use": _in_use(config),
    }


def _in_use(config: pytest.Config) -> list[str]:
    """Runs that other sessions are writing to. Only a resumed session asks, before workers of its own write to one."""
    options = config.stash[OPTIONS]
    if not options.resume:
        return []
    from embedcore.results.books import FOLDER, runs_in_use

    return sorted(runs_in_use(options.cache_folder / FOLDER))


def place_of(config: pytest.Config) -> Place:
    """Which of the processes of this session this one is."""
    from embedcore.results.books import Place, run_name

    worker = getattr(config, "workerinput", None)
    if worker is None:
        return Place.alone()
    given = worker[OF_WORKERS]
    name = re.sub(r"[^\w-]", "_", worker["workerid"])  # an id of the user's may hold anything
    return Place(run_name(given["began"], given["pid"]), name, frozenset(given["in_use"]), given["slot"])


def tells_notes(config: pytest.Config) -> bool:
    """Whether this process tells what all workers know."""
    worker = getattr(config, "workerinput", None)
    return worker is None or bool(worker[OF_WORKERS]["tells"])


def tell_controller(config: pytest.Config, **said: Any) -> None:
    """Have the controller hear of something when this worker ends; does nothing in any other process."""
    if hasattr(config, "workeroutput"):
        config.workeroutput.setdefault(OF_WORKERS, {}).update(said)


def said_by(node: Any) -> Mapping[str, Any]:
    """What a worker that has ended told with `tell_controller`; its slot is free again."""
    node.config.stash.get(SLOTS, {}).pop(getattr(getattr(node, "gateway", None), "id", None), None)
    said: Mapping[str, Any] = getattr(node, "workeroutput", {}).get(OF_WORKERS, {})
    return said


def take(config: pytest.Config, said: Mapping[str, Any]) -> None:
    """Keep what a worker told, for the end of the session."""
    config.stash[COLLECTOR].notice(said.get("notices", ()))
    if "stopped" in said:
        config.stash[STOPPED] = said["stopped"]
    if "empty_shard" in said:
        config.stash[EMPTY_SHARD] = said["empty_shard"]


def end_before_first_test(session: pytest.Session, why: str, code: pytest.ExitCode) -> None:
    """End a session that has run no test; where this is a worker, its controller says why."""
    if hasattr(session.config, "workeroutput"):
        tell_controller(session.config, stopped=(why, int(code)))
        session.items.clear()
    elif code == pytest.ExitCode.USAGE_ERROR:
        raise pytest.UsageError(why)
    else:
        pytest.exit(why, returncode=code)


def end_in_test(session: pytest.Session, why: str, code: pytest.ExitCode) -> NoReturn:
    """End the session in the middle of a test, which has no result.

    A worker must end its test first: for pytest-xdist one that leaves it by an exit has crashed.
    """
    if not hasattr(session.config, "workeroutput"):
        pytest.exit(why, returncode=code)
    tell_controller(session.config, stopped=(why, int(code)))
    session.shouldstop = why
    if code == pytest.ExitCode.USAGE_ERROR:
        pytest.fail(why, pytrace=False)
    pytest.skip(why)
