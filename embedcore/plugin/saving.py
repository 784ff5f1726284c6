"""The saved JSON where pytest-benchmark saves none: no case was measured, or it is off, as under pytest-xdist."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcore.errors import UsageError
from embedcore.plugin.stash import COLLECTOR
from embedcore.plugin.summary import tell
from embedcore.results.from_journal import benchmark_entry

if TYPE_CHECKING:
    import pytest


def check_saving(config: pytest.Config) -> None:
    """Raise UsageError for what would lose results, or fail with a traceback, when all is measured."""
    if config.getoption("forked", False):  # of pytest-forked
        raise UsageError("--forked: pytest-benchmark loses what it times in a forked test; leave it out (-p no:forked)")
    path = config.getoption("benchmark_json", None)
    if path and not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--benchmark-json: no such folder: {Path(path).absolute().parent}")
    if config.getoption("benchmark_histogram", None) and not importlib.util.find_spec("pygal"):
        raise UsageError("--benchmark-histogram: pygal is not installed: pip install 'pytest-benchmark[histogram]'")
    if config.getoption("benchmark_compare_fail", None):
        against = config.getoption("benchmark_compare", None)
        if not against:
            raise UsageError("--benchmark-compare-fail: it needs --benchmark-compare, the saved run to compare with")
        session = getattr(config, "_benchmarksession", None)  # there is no public way to what it has loaded
        if session is not None and not session.compared_mapping:
            what = "nothing is saved yet" if against is True else f"no saved run matches {against!r}"
            raise UsageError(f"--benchmark-compare-fail: nothing to compare with: {what} ({session.storage})")


def save_json(config: pytest.Config) -> None:
    """Write what ``--benchmark-json``, ``--benchmark-save`` and ``--benchmark-autosave`` ask for.

    Does nothing where pytest-benchmark has done so. The content comes from its own hooks, so it has all that a saved
    run has. Raises UsageError if it cannot be written.
    """
    if config.stash[COLLECTOR].saved:
        return
    path = config.getoption("benchmark_json", None)
    name = config.getoption("benchmark_save", None) or config.getoption("benchmark_autosave", None)
    # pytest-benchmark has no public way to its storage.
    storage = getattr(getattr(config, "_benchmarksession", None), "storage", None) if name else None
    if not path and storage is None:
        return
    saved = content(config)
    try:
        if path:
            Path(path).write_text(json.dumps(saved, indent=4, default=str), encoding="ascii")
            tell(config, f"Wrote benchmark data in: {path} (by embedcore)")
        if storage is not None:
            storage.save(saved, name)
    except OSError as error:
        raise UsageError(f"--benchmark-json or --benchmark-save: {error}") from error


def commit_info(config: pytest.Config) -> dict[str, Any]:
    """What a saved JSON says of the commit, from pytest-benchmark's own hooks; nothing without that plugin."""
    if not config.pluginmanager.has_plugin("benchmark"):
        return {}
    info: dict[str, Any] = config.hook.pytest_benchmark_generate_commit_info(config=config)
    config.hook.pytest_benchmark_update_commit_info(config=config, commit_info=info)
    return info


def content(config: pytest.Config) -> dict[str, Any]:
    """What a saved JSON of this session holds, from pytest-benchmark's own hooks."""
    hook = config.hook
    machine_info = hook.pytest_benchmark_generate_machine_info(config=config)
    hook.pytest_benchmark_update_machine_info(config=config, machine_info=machine_info)
    commit = commit_info(config)
    collector = config.stash[COLLECTOR]
    saved: dict[str, Any] = hook.pytest_benchmark_generate_json(
        config=config, benchmarks=[], include_data=True, machine_info=machine_info, commit_info=commit
    )
    saved["benchmarks"] = [benchmark_entry(result, test) for test, result in collector.measured]
    hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=saved)
    return saved
