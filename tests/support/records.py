"""Records of made-up runs, as a session would keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedcore.results.record import Record, read_record
from embedcore.results.result import Result
from embedcore.results.runs import Worker, done_tests

IDENTITY = {"dataset": "abc", "seed": 0, "weights": "auto", "timm": "1.0.31"}


def begun(
    folder: Path,
    planned: Mapping[str, str] | Iterable[str],
    worker: Worker | str = "new",
    *,
    resume: bool = False,
    **header: Any,
) -> Record:
    """A record whose journal is open; ``planned``: test id to model, or models, each of which names its test."""
    tests = dict(planned) if isinstance(planned, Mapping) else {model: model for model in planned}
    worker = Worker(worker) if isinstance(worker, str) else worker
    record = Record()
    record.begin(folder, {"identity": IDENTITY, "tests": tests, **header}, worker, resume=resume)
    return record


def keep(record: Record, *results: Result, test: str = "") -> None:
    """Keep results and report them, as a session does."""
    for result in results:
        record.keep(result, test or result.model)
        for line in record.unsent():
            record.take(line)


def journal(
    folder: Path, name: str, results: Iterable[Result], planned: Iterable[str] = ("z.x",), **header: Any
) -> Path:
    """The journal of an ended run; finished if the results cover all `planned` models."""
    record = begun(folder, planned, name, **header)
    keep(record, *results)
    record.close()
    return folder / f"{name}.jsonl"


def begun_in(folder: Path) -> list[Path]:
    """The journals with a whole header; a process is killed, or looked at, before it has written its own."""
    return sorted(path for path in folder.glob("*.jsonl") if b"\n" in path.read_bytes())


def read(*paths: Path) -> Record:
    return read_record(paths)


def finished(record: Record) -> bool:
    """Whether every planned test has a final result, from the whole record."""
    results = ((entry.test, entry.key, entry.result.final) for entry in record.entries)
    return bool(record.planned) and done_tests(record.planned, results) == record.planned.keys()


def models(record: Record) -> list[str]:
    """The models of all measurements in their order."""
    return [entry.result.model for entry in record.entries]
