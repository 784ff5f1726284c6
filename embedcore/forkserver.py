"""The forkserver of all child processes: torch and timm are imported once, memory and threads are set for speed.

multiprocessing has one forkserver per process, so decoding workers and measuring children share it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, process, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, TypeVar

from embedcore.errors import EmbedcoreError
from embedcore.interrupts import interrupts_held, interrupts_ignored

# glibc returns blocks above a threshold to the kernel at once, so every activation of every layer costs page faults
# again. Keeping up to 4 GiB makes a convolutional network 2 to 4 times faster (docs/gpu.md). Both thresholds are
# needed, and they must be in the environment before the process starts.
_KEEP_BYTES = 4 * 2**30
TUNABLES = f"glibc.malloc.mmap_threshold={_KEEP_BYTES}:glibc.malloc.trim_threshold={_KEEP_BYTES}"

# OpenMP's threads spin at a barrier before they sleep. On a busy machine this takes the core from the very thread that
# they wait for. Less spinning makes timings steadier; none would cost speed on an idle machine (docs/performance.md).
# GOMP_SPINCOUNT is a variable of GNU's OpenMP, which torch uses on Linux.
_OPENMP = {"GOMP_SPINCOUNT": "10000"}
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

PRELOAD = ["embedcore.measure.preload"]

# The path of a UNIX socket may have 107 bytes on Linux and 103 on macOS. multiprocessing puts its sockets into a folder
# of its own in TMPDIR.
_SOCKET_BYTES = 103 - len("/listener-01234567")
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

_START_TRIES = 3
_START_PAUSE_S = 0.2
_Started = TypeVar("_Started")


class StartError(EmbedcoreError):
    """No child process can be started."""


def tunables_with(existing: str | None) -> str:
    """Return the value of GLIBC_TUNABLES with ours added to the user's, which take precedence.

    >>> tunables_with("glibc.malloc.trim_threshold=1").split(":")[1]
    'glibc.malloc.trim_threshold=1'
    """
    entries = dict(entry.partition("=")[::2] for entry in TUNABLES.split(":"))
    entries |= dict(entry.partition("=")[::2] for entry in (existing or "").split(":") if entry)
    return ":".join(f"{key}={value}" for key, value in entries.items())


def settings_of_children(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables added to child processes' environment: malloc keeps freed memory, and waiting threads spin
    only briefly, unless the user has set how they wait."""
    waiting = {} if any(name in environment for name in _WAITING) else _OPENMP
    return {"GLIBC_TUNABLES": tunables_with(environment.get("GLIBC_TUNABLES")), **waiting}


def child_environment() -> dict[str, str]:
    """Return the environment for a child: this process's current one, with the settings of children."""
    return {**os.environ, **settings_of_children(os.environ)}


def adopt_environment(environment: Mapping[str, str]) -> None:
    """Make ``environment`` this process's own, in a child, which starts with the forkserver's."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def forkserver_context() -> ForkServerContext:
    """Return the forkserver context, with its server running; a dead server is restarted."""
    _shorten_socket_paths()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    settings = settings_of_children(os.environ) | _path_of_imports()
    before = {name: os.environ[name] for name in settings if name in os.environ}
    os.environ.update(settings)
    try:
        with interrupts_ignored():  # an interrupt while the server imports would print a traceback
            forkserver.ensure_running()
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)
    return context


def renew_forkserver() -> None:
    """Stop the server, if one runs, so that the next child comes from a new one.

    Code and data are at the same addresses in all children of a server, and at others in those of another server. Speed
    depends on the addresses (docs/how-speed-is-measured.md), so the scatter of processes of one server is too small.
    A server with a running child is kept, because it reports the child's exit code.
    """
    if any(isinstance(child, ForkServerProcess) for child in multiprocessing.active_children()):
        return
    server: Any = forkserver._forkserver
    with interrupts_held():
        if server._forkserver_pid is not None:
            os.kill(server._forkserver_pid, signal.SIGKILL)  # else it waits for processes that a child has left behind
            server._stop()


def _path_of_imports() -> dict[str, str]:
    """Return variables with which the server imports from where this process does.

    Its own first folder would be the working directory, and before Python 3.11 it still is.
    """
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "PYTHONSAFEPATH": "1"}


def _shorten_socket_paths() -> None:
    """Move multiprocessing's sockets, and nothing else, to a short folder if TMPDIR is too long for them.

    Raises StartError if there is no such folder.
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
    """Call ``start()``, which starts a child, and return its result; call it again if the forkserver has just died.

    ``start`` must call `forkserver_context` itself, so that each call finds a running server, and close what a failed
    call has opened. Ctrl-C is held during a call, since an interrupted request kills the forkserver. Raises StartError
    if the third call fails too.
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


def exit_words(code: int | None) -> str:
    """Describe an exit code of multiprocessing, such as ``was killed by SIGKILL``."""
    if code is None:
        return "vanished"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
