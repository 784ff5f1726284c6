"""The saved JSON of a session in which no case could be measured: pytest-benchmark then saves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcore.errors import UsageError
from embedcore.plugin.stash import COLLECTOR

if TYPE_CHECKING:
    import pytest


def save_without_benchmarks(config: pytest.Config) -> None:
    """Write what ``--benchmark-json``, ``--benchmark-save`` and ``--benchmark-autosave`` ask for, with no benchmarks.

    Does nothing where a case was measured. The content comes from pytest-benchmark's own hooks, so it has all that a
    saved run has. Raises UsageError if it cannot be written.
    """
    collector = config.stash[COLLECTOR]
    if collector.measured or collector.saved:
        return
    path = config.getoption("benchmark_json", None)
    name = config.getoption("benchmark_save", None) or config.getoption("benchmark_autosave", None)
    # pytest-benchmark has no public way to its storage.
    storage = getattr(getattr(config, "_benchmarksession", None), "storage", None) if name else None
    if not path and storage is None:
        return
    content = _content(config)
    try:
        if path:
            Path(path).write_text(json.dumps(content, indent=4, default=str), encoding="ascii")
            _tell(config, f"Wrote benchmark data in: {path} (no case was measured)")
        if storage is not None:
            storage.save(content, name)
    except OSError as error:
        raise UsageError(f"--benchmark-json or --benchmark-save: {error}") from error


def _tell(config: pytest.Config, line: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(line)


def _content(config: pytest.Config) -> dict[str, Any]:
    hook = config.hook
    machine_info = hook.pytest_benchmark_generate_machine_info(config=config)
    hook.pytest_benchmark_update_machine_info(config=config, machine_info=machine_info)
    commit_info = hook.pytest_benchmark_generate_commit_info(config=config)
    hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit_info)
    content: dict[str, Any] = hook.pytest_benchmark_generate_json(
        config=config, benchmarks=[], include_data=True, machine_info=machine_info, commit_info=commit_info
    )
    hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=content)
    return content
