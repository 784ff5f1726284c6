"""Write the saved JSON if pytest-benchmark does not: nothing was measured, or it is off, as under pytest-xdist."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from embedcore.errors import UsageError
from embedcore.results.record import Entry, Record
from embedcore.results.saved import benchmark_entry


def check_saving(config: pytest.Config) -> None:
    """Raise UsageError for options that would lose results or fail with a traceback after everything is measured."""
    if config.getoption("forked", False):  # option of pytest-forked
        raise UsageError(
            "--forked is not supported: pytest-benchmark loses timings of forked tests; leave it out (-p no:forked)"
        )
    path = config.getoption("benchmark_json", None)
    if path and not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--benchmark-json: no such folder: {Path(path).absolute().parent}")
    if config.getoption("benchmark_histogram", None) and not importlib.util.find_spec("pygal"):
        raise UsageError("--benchmark-histogram: pygal is not installed: pip install 'pytest-benchmark[histogram]'")
    if config.getoption("benchmark_compare_fail", None):
        against = config.getoption("benchmark_compare", None)
        if not against:
            raise UsageError("--benchmark-compare-fail needs --benchmark-compare, the saved run to compare with")
        session = getattr(config, "_benchmarksession", None)  # the loaded runs have no public accessor
        if session is not None and not session.compared_mapping:
            what = "nothing is saved yet" if against is True else f"no saved run matches {against!r}"
            raise UsageError(f"--benchmark-compare-fail: nothing to compare with: {what} ({session.storage})")


def save_json(config: pytest.Config, entries: Iterable[Entry], write_line: Callable[[str], None]) -> None:
    """Write the files of ``--benchmark-json``, ``--benchmark-save`` and ``--benchmark-autosave``.

    For sessions in which pytest-benchmark has not written them. Raises UsageError if they cannot be written.
    """
    path = config.getoption("benchmark_json", None)
    name = config.getoption("benchmark_save", None) or config.getoption("benchmark_autosave", None)
    # pytest-benchmark's storage has no public accessor.
    storage = getattr(getattr(config, "_benchmarksession", None), "storage", None) if name else None
    if not path and storage is None:
        return
    saved = saved_json(config, entries)
    try:
        if path:
            Path(path).write_text(json.dumps(saved, indent=4, default=str), encoding="ascii")
            write_line(f"Wrote benchmark data in: {path} (by embedcore)")
        if storage is not None:
            storage.save(saved, name)
    except OSError as error:
        raise UsageError(f"--benchmark-json or --benchmark-save: {error}") from error


def complete(benchmarks: list[dict[str, Any]], record: Record) -> None:
    """Add what pytest-benchmark lacks to the benchmarks of a saved JSON.

    Cases are timed again after their tests, and a test that measured and then failed, or did not replay, has no entry.
    """
    saved = set()
    for info in [bench["extra_info"] for bench in benchmarks]:
        key = info.get("model"), info.get("dataset")
        saved.add(key)
        if key in record.results:
            info["processes"] = record.results[key].to_json()["processes"]
    rest = [entry for entry in record.entries if entry.result.ok and entry.key not in saved]
    benchmarks += [benchmark_entry(entry.result, entry.test) for entry in rest]


def commit_info(config: pytest.Config) -> dict[str, Any]:
    """Return ``commit_info`` of a saved JSON, from pytest-benchmark's own hooks; empty without that plugin."""
    if not config.pluginmanager.has_plugin("benchmark"):
        return {}
    info: dict[str, Any] = config.hook.pytest_benchmark_generate_commit_info(config=config)
    config.hook.pytest_benchmark_update_commit_info(config=config, commit_info=info)
    return info


def saved_json(config: pytest.Config, entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the content of a saved JSON with these measurements, from pytest-benchmark's own hooks."""
    hook = config.hook
    machine_info = hook.pytest_benchmark_generate_machine_info(config=config)
    hook.pytest_benchmark_update_machine_info(config=config, machine_info=machine_info)
    saved: dict[str, Any] = hook.pytest_benchmark_generate_json(
        config=config, benchmarks=[], include_data=True, machine_info=machine_info, commit_info=commit_info(config)
    )
    saved["benchmarks"] = [benchmark_entry(entry.result, entry.test) for entry in entries if entry.result.ok]
    hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=saved)
    return saved
