"""Programs in children of the tests' forkserver, which has torch and timm imported.

A new interpreter imports them for about five seconds, and the forkserver of a session in it does so again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from execnet import gateway_io

from embedcore.ab.environments import Environment
from embedcore.forkserver import adopt_environment, forkserver_context

SHARED = ("_forkserver_address", "_forkserver_authkey")


def pytest_session(*arguments: str) -> int:
    """Run pytest with all installed plugins; workers of pytest-xdist are forked, too."""
    import pytest

    gateway_io.create_io = ForkedWorker
    # It cannot rewrite the assertions of plugins' packages that are imported already.
    return int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments]))


def lean_session(*arguments: str) -> int:
    """Run pytest with two plugins: the others take longer to import than a case to measure."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return pytest_session("-p", "pytest_benchmark.plugin", "-p", "embedcore.plugin.hooks", *arguments)


def script(code: str) -> int:
    """Run code as ``python -c`` does."""
    sys.path.insert(0, "")
    exec(compile(code, "<script>", "exec"), {"__name__": "__main__"})
    return 0


def start(
    program: Callable[..., int],
    *arguments: str,
    folder: Path,
    output: str | Path,
    errors: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start a function of this module in a folder; it leads a process group, and what it returns is the exit code.

    Args:
        output: file or terminal to which standard output is appended.
        errors: the same for standard error; `output` if None.
        environment: its environment variables; those of this process if None.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOCTTY
    streams = {
        descriptor: Connection(os.open(path, flags, 0o644))
        for descriptor, path in enumerate((output, errors or output), start=1)
    }
    return _start(program, *arguments, folder=folder, streams=streams, environment=environment or os.environ, group=0)


def ended(process: BaseProcess) -> int | None:
    """Wait for the exit code."""
    process.join(300)
    return process.exitcode


class ForkedPopen:
    """A stand-in for ``subprocess.Popen`` of ``python -c``, with pipes for standard input and output."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stderr: IO[str] | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = False,
        start_new_session: bool = False,
        **_: object,
    ) -> None:
        (reader, output), (stdin, writer) = (forkserver_context().Pipe(duplex=False) for _ in range(2))
        errors = Connection(os.dup(2 if stderr is None else stderr.fileno()))
        self._process = _start(
            script,
            command[-1],
            folder=Path.cwd(),
            streams={0: stdin, 1: output, 2: errors},
            environment=env or os.environ,
            group=0 if start_new_session else os.getpgid(0),
        )
        self.stdin, self.stdout = (
            os.fdopen(os.dup(end.fileno()), mode if text else f"{mode}b")
            for end, mode in ((writer, "w"), (reader, "r"))
        )

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


class ForkedWorker(gateway_io.Popen2IOMaster):
    """The connection to a forked worker of pytest-xdist, in place of ``execnet.gateway_io.create_io``."""

    def __init__(self, spec: Any, execmodel: Any) -> None:
        self.popen = ForkedPopen(gateway_io.popen_args(spec))
        gateway_io.Popen2IO.__init__(self, self.popen.stdin, self.popen.stdout, execmodel=execmodel)


def start_side(command: Sequence[str], *, env: Mapping[str, str], **options: Any) -> Any:
    """Start a side of ``embedcore ab``: a new interpreter if its environment has packages of its own, else forked."""
    usual = Environment("", Path(sys.executable)).variables()["PYTHONPATH"]
    start = ForkedPopen if env["PYTHONPATH"] == usual else subprocess.Popen
    return start(command, env=env, **options)


FORKED_SIDES = SimpleNamespace(**{**vars(subprocess), "Popen": start_side})
"""In place of the ``subprocess`` of `embedcore.ab.sides`."""


def _start(
    program: Callable[..., int],
    *arguments: str,
    folder: Path,
    streams: dict[int, Connection],
    environment: Mapping[str, str],
    group: int,
) -> BaseProcess:
    """Start the program with these standard streams, which are closed here, in a process group; 0: one of its own."""
    context = forkserver_context()
    server = {name: value for name, value in vars(forkserver._forkserver).items() if name in SHARED}
    process = context.Process(
        target=_run, args=(program, arguments, str(folder), streams, dict(environment), group, server)
    )
    process.start()
    for stream in streams.values():
        stream.close()
    return process


def _run(
    program: Callable[..., int],
    arguments: tuple[str, ...],
    folder: str,
    streams: dict[int, Connection],
    environment: Mapping[str, str],
    group: int,
    server: Mapping[str, object],
) -> None:
    # Its children are those of the same forkserver.
    vars(forkserver._forkserver).update(server)
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    adopt_environment(environment)
    os.chdir(folder)
    os.setpgid(0, group)
    for descriptor, stream in streams.items():
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    code = program(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
