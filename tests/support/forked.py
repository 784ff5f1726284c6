"""Programs in children of the tests' forkserver, which has torch and timm imported.

A new interpreter imports them for about five seconds, and the forkserver of a session in it does so again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from embedcore.forkserver import adopt_environment, forkserver_context

SHARED = ("_forkserver_address", "_forkserver_authkey")


def pytest_session(*arguments: str) -> int:
    """Run pytest with all installed plugins."""
    import pytest

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
    context = forkserver_context()
    server = {name: value for name, value in vars(forkserver._forkserver).items() if name in SHARED}
    paths = (str(output), str(errors or output))
    process = context.Process(
        target=_run, args=(program, arguments, str(folder), paths, dict(environment or os.environ), server)
    )
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    """Wait for the exit code."""
    process.join(300)
    return process.exitcode


def _run(
    program: Callable[..., int],
    arguments: tuple[str, ...],
    folder: str,
    paths: tuple[str, str],
    environment: Mapping[str, str],
    server: Mapping[str, object],
) -> None:
    # Its children are those of the same forkserver.
    vars(forkserver._forkserver).update(server)
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    adopt_environment(environment)
    os.chdir(folder)
    os.setsid()
    for descriptor, path in enumerate(paths, start=1):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOCTTY, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    code = program(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
