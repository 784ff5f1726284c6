"""A journal as the JSON that its session would have saved: of a run that broke off, or was not saved at all."""

from __future__ import annotations

import datetime
import importlib.metadata
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.results.books import find_runs, journals_of
from embedcore.results.journal import JournalContents, read_header
from embedcore.results.result import Result
from embedcore.results.run import embedcore_block
from embedcore.zoo.families import family_of_slug

SUFFIX = ".jsonl"


def last_run(folder: Path) -> Path:
    """A journal of the run of `folder` that was last written to. Raises UsageError where there is none."""
    passed_over = []
    for paths in journals_of(folder).values():
        for path in paths:
            try:
                if read_header(path) is not None:
                    return path
            except UsageError as error:
                passed_over.append(str(error))
    why = f": {passed_over[0]}" if passed_over else ""
    raise UsageError(f"no run has been measured with the cache folder {folder.parent}: {folder} has no journal{why}")


def read_journal_data(path: Path) -> dict[str, Any]:
    """The JSON, in pytest-benchmark's format, of the run whose journal is `path`; a run of several workers is one.

    Raises UsageError where it cannot be read.
    """
    name = path.name.partition(".")[0]
    runs, passed_over = find_runs(path.parent, name)
    if name not in runs:
        raise UsageError(passed_over[0] if passed_over else f"{path} is not a journal of embedcore: it holds nothing")
    return data_of(runs[name])


def data_of(contents: JournalContents) -> dict[str, Any]:
    """The JSON of a run; of a case that was measured twice the later result stands."""
    header = contents.header
    results = list({(result.model, result.dataset): result for result in contents.results}.values())
    measured_by = zip(contents.results, contents.tests, strict=True)
    tests = {(result.model, result.dataset): test for result, test in measured_by}
    # In an older journal models stand for tests.
    reached = {*contents.tests, *(result.model for result in results)}
    datasets = {block.get("fingerprint"): block for block in (header.get("dataset") or {}, *contents.datasets)}
    measured = {result.dataset for result in results}
    used = [block for key, block in datasets.items() if key in measured] or list(datasets.values())
    block = embedcore_block(
        settings=header.get("settings") or {}, datasets=used, excluded=[r for r in results if not r.ok]
    )
    return {
        "machine_info": {"embedcore": header.get("machine") or {}},
        "commit_info": header.get("commit_info") or {},
        "benchmarks": [benchmark_entry(result, tests[result.model, result.dataset]) for result in results if result.ok],
        "datetime": datetime.datetime.fromtimestamp(contents.written, datetime.timezone.utc).isoformat(),
        "version": importlib.metadata.version("pytest-benchmark"),
        "embedcore": block
        | {
            "selection": header.get("selection") or {},
            "unreached": list(dict.fromkeys(model for test, model in contents.planned.items() if test not in reached)),
            "renamed": header.get("renamed") or {},
            "noise": header.get("noise"),
        },
    }


def benchmark_entry(result: Result, test: str | None) -> dict[str, Any]:
    """An entry of ``benchmarks``, in seconds an image: a round is told as so many iterations as a batch has images."""
    images = result.batch_size or 1
    name = f"test_model[{result.model}]"
    return {
        "group": benchmark_group(family_of_slug(result.family).title, result),
        "name": test.rpartition("::")[2] if test else name,
        "fullname": test or name,
        "params": {"embed_model": result.model},
        "param": result.model,
        "extra_info": result.extra_info(),
        "options": {"timer": "replayed_seconds"},
        "stats": stats_of([seconds / images for seconds in result.durations] or [0.0]) | {"iterations": images},
    }


def benchmark_group(family: str, result: Result) -> str:
    """The table of a result: one of its own for a smaller batch than asked for, in pytest-benchmark's compare too, and
    for what was not timed."""
    if not result.durations:
        return f"{family}, embeddings made elsewhere: not timed"
    return f"{family}, in a smaller batch than asked for" if result.batch_decayed else family


def stats_of(seconds: Sequence[float]) -> dict[str, Any]:
    """What pytest-benchmark says of rounds that took so long, under its names, with its quartiles and outliers."""
    ordered = sorted(seconds)
    mean, total = statistics.mean(ordered), sum(seconds)
    stddev = statistics.stdev(ordered) if len(ordered) > 1 else 0
    q1, q3 = _quartile(ordered), _quartile(ordered[::-1])
    iqr = q3 - q1
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    far = sum(not mean - stddev <= value <= mean + stddev for value in ordered)
    beyond = sum(not low <= value <= high for value in ordered)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(ordered),
        "median": statistics.median(ordered),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": min(value for value in ordered if value >= low),
        "hd15iqr": max(value for value in ordered if value <= high),
        "ops": len(ordered) / total if total else 0,
        "total": total,
        "data": list(seconds),
    }


def _quartile(values: Sequence[float]) -> float:
    """The lower quartile of ascending values, the upper one of descending ones: methods 2 and 3 of Wikipedia's list."""
    whole, rest = divmod(len(values), 4)
    if len(values) == 1:
        return values[0]
    if rest == 1:
        return 0.25 * values[whole - 1] + 0.75 * values[whole]
    if rest == 3:
        return 0.75 * values[whole] + 0.25 * values[whole + 1]
    return statistics.median(values[: len(values) // 2])
