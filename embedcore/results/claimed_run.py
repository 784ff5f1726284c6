"""The run of a claim folder, read from the journals of all its workers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from embedcore.plain import counted
from embedcore.results.claims import shared_run
from embedcore.results.journal import read_header
from embedcore.results.merge import join, join_selections
from embedcore.results.record import Entry, Record, read_record
from embedcore.results.run import machine_of, versions_of_machines
from embedcore.results.runs import Key, journals_of


class _Measured(NamedTuple):
    """A worker's last measurement of a case."""

    written: float
    worker: str
    entry: Entry


def read_claimed(folder: Path) -> Record:
    """Return the record of the run in a claim folder: one result per case, and notes in its ``warnings``.

    A case has several results if it was retried after a temporary failure, or if a worker that was taken for dead
    continued: the first final one is kept, or else the last. If the machines differ, each result names its own. Without
    any journal the record is empty. Raises UsageError if the folder has no run, or a journal cannot be read.
    """
    run = str(shared_run(folder)["run"])
    paths = sorted(path for path in journals_of(folder, run).get(run, ()) if read_header(path) is not None)
    parts = {path.name.removeprefix(f"{run}.").removesuffix(".jsonl"): read_record([path]) for path in paths}
    record = Record()
    if not parts:
        return record
    machines = sorted({machine_of(part.machine) for part in parts.values()})
    found: dict[Key, list[_Measured]] = {}
    for worker, part in parts.items():
        record.planned |= part.planned
        record.datasets |= part.datasets
        record.damaged += [f"{worker}: {line}" for line in part.damaged]
        for key, entry in {entry.key: entry for entry in part.entries}.items():
            if len(machines) > 1:
                named = msgspec.structs.replace(entry.result, processor=machine_of(part.machine))
                entry = entry._replace(result=named)
            found.setdefault(key, []).append(_Measured(part.times[key], worker, entry))
    record.header = _header(list(parts.values()), machines)
    for measured in sorted((_kept(each, record.warnings) for each in found.values()), key=lambda one: one.written):
        record.entries.append(measured.entry)
        record.results[measured.entry.key] = measured.entry.result
        record.times[measured.entry.key] = measured.written
        record.workers.add(measured.worker)
    if record.damaged:
        record.warnings.append(f"{counted(len(record.damaged), 'damaged line')} of journals: {record.damaged[0]}")
    return record


def _kept(found: list[_Measured], notes: list[str]) -> _Measured:
    found = sorted(found, key=lambda one: one.written)
    final = [one for one in found if one.entry.result.final]
    if len(final) > 1:
        workers = " and ".join(one.worker for one in final)
        notes.append(f"{final[0].entry.result.model}: measured by {workers}; kept the first result")
    return final[0] if final else found[-1]


def _header(parts: list[Record], machines: list[str]) -> dict[str, object]:
    first, headers = parts[0], [part.header for part in parts]
    noises = [header["noise"] for header in headers if header.get("noise") is not None]
    return {
        **first.header,
        "settings": {**first.settings, **join([part.settings for part in parts], ("roster", "family"))},
        "selection": join_selections([header.get("selection") or {} for header in headers]),
        "renamed": {old: now for header in headers for old, now in (header.get("renamed") or {}).items()},
        "costs": {model: cost for header in headers for model, cost in (header.get("costs") or {}).items()},
        "noise": max(noises, default=None),
        "machine": versions_of_machines(first.machine, machines),
    }
