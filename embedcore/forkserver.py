"""The forkserver of every child process of embedcore: torch and timm imported once, memory and threads set for speed.

multiprocessing has one forkserver a process, so the workers that decode and the children that measure share it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, process, util
from multiprocessing.context import ForkServerContext
from typing import TypeVar

from embedcore.errors import EmbedcoreError
from embedcore.interrupts import interrupts_held, interrupts_ignored

# glibc gives blocks above a threshold straight back to the kernel, so that every activation of every layer is paid for
# again in page faults. Keeping up to 4 GiB makes a convolutional network 2 to 4 times faster (README, Speed).
# Both thresholds are needed, and they must be in the environment before the process starts.
_KEEP_BYTES = 4 * 2**30
TUNABLES = f"glibc.malloc.mmap_threshold={_KEEP_BYTES}:glibc.malloc.trim_threshold={_KEEP_BYTES}"

# OpenMP's threads spin at a barrier for a while before they sleep: beside other work on a core, while the thread
# that all wait for has none. Spinning less steadies that, and costs nothing on an idle machine as sleeping at once
# does (README, Speed). This is of GNU's OpenMP, which torch has on Linux.
_OPENMP = {"GOMP_SPINCOUNT": "10000"}
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

PRELOAD = ["embedcore.measure.preload"]

# The path of a UNIX socket holds 107 bytes on Linux and 103 on macOS. multiprocessing adds a name of its own to the
# folder of its sockets, and that folder's name to TMPDIR.
_SOCKET_BYTES = 103 - len("/listener-01234567")
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

_START_TRIES = 3
_START_PAUSE_S = 0.2
_Started = TypeVar("_Started")


class StartError(EmbedcoreError):
    """No child process can be had."""


def tunables_with(existing: str | None) -> str:
    """The value of GLIBC_TUNABLES which adds ours to what the user has set; theirs wins where both set one.

    >>> tunables_with("glibc.malloc.trim_threshold=1").split(":")[1]
    'glibc.malloc.trim_threshold=1'
    """
    entries = dict(entry.partition("=")[::2] for entry in TUNABLES.split(":"))
    entries |= dict(entry.partition("=")[::2] for entry in (existing or "").split(":") if entry)
    return ":".join(f"{key}={value}" for key, value in entries.items())


def settings_of_children(environment: Mapping[str, str]) -> dict[str, str]:
    """What child processes have in their environment besides: memory that is kept, and threads that do not spin for
    long while they wait, unless the user has said how they are to wait."""
    waiting = {} if any(name in environment for name in _WAITING) else _OPENMP
    return {"GLIBC_TUNABLES": tunables_with(environment.get("GLIBC_TUNABLES")), **waiting}


def child_environment() -> dict[str, str]:
    """Return the environment that a child is to have: this process's own of now, with the settings of children."""
    return {**os.environ, **settings_of_children(os.environ)}


def adopt_environment(environment: Mapping[str, str]) -> None:
    """Make ``environment`` this process's own, in a child: it was started with that of the forkserver's start."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def forkserver_context() -> ForkServerContext:
    """The forkserver context, with its server running; one that has died is started anew."""
    _shorten_socket_paths()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    settings = settings_of_children(os.environ)
    before = {name: os.environ[name] for name in settings if name in os.environ}
    os.environ.update(settings)
    try:
        with interrupts_ignored():  # by the server while it imports: its traceback would be on the terminal
            forkserver.ensure_running()
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)
    return context


def _shorten_socket_paths() -> None:
    """Move multiprocessing's sockets to a short folder where TMPDIR is too long for them; nothing else moves.

    Raises StartError where there is no such folder.
    """
    if _is_short():
        return
    chosen = tempfile.gettempdir()
    for folder in _SHORT_FOLDERS:
        process.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            with contextlib.suppress(OSError):
                if _is_short():
                    return
        finally:
            tempfile.tempdir = before
    longest = _SOCKET_BYTES - len("/pymp-01234567")
    raise StartError(
        f"no child process can be started: TMPDIR={chosen} is too long for the paths of sockets, and none of "
        f"{', '.join(_SHORT_FOLDERS)} can be written to: set TMPDIR to a folder of at most {longest} characters"
    )


def _is_short() -> bool:
    return len(os.fsencode(util.get_temp_dir())) <= _SOCKET_BYTES


def start_surely(start: Callable[[], _Started]) -> _Started:
    """What ``start()`` gives, which starts a child; it is called again where the forkserver died just now.

    ``start`` asks for the context itself, so that each call finds a server running, with the memory set up. What a
    failed call has opened it closes. Ctrl-C waits for the call: the forkserver dies of a request that is broken off.
    Raises StartError when the third call has failed too.
    """
    failures = 0
    while True:
        try:
            with interrupts_held():
                return start()
        except (OSError, EOFError) as error:
            failures += 1
            if failures == _START_TRIES:
                raise StartError(f"no child process can be started: {type(error).__name__}: {error}") from error
        time.sleep(_START_PAUSE_S)
