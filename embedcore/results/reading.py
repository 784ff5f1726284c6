"""Opening saved runs: a file, a journal, a folder of files, or a name in pytest-benchmark's storage."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from embedcore.errors import UsageError
from embedcore.files import STORAGE, user_path
from embedcore.plain import one_line
from embedcore.results.claimed_run import read_claimed
from embedcore.results.claims import RUN, is_shared
from embedcore.results.journal import read_header
from embedcore.results.merge import merge
from embedcore.results.record import read_record
from embedcore.results.run import Run, is_run, run_of
from embedcore.results.runs import journals_of


def read_run(where: str | Path, *, storage: str | Path = STORAGE) -> Run:
    """Read a saved run: a file, a journal, a folder with the files of one run, or a saved name (see `find_run`).

    Raises UsageError, with one line that names the file, if it is not JSON, was not saved by pytest-benchmark with
    embedcore, or has a schema that this version does not know.
    """
    path = find_run(where, storage=storage)
    return run_of(merge(read_parts(path)).data if path.is_dir() else read_data(path), path)


def read_data(path: Path) -> object:
    """Return the content of a saved JSON; for a journal, the JSON that its session would have saved.

    Raises UsageError.
    """
    return read_json(path) if path.suffix != ".jsonl" else read_record(_journals_beside(path)).data()


def _journals_beside(path: Path) -> list[Path]:
    """Return the journals of the run that the journal at `path` belongs to, one for each process that measured."""
    run = path.name.partition(".")[0]
    begun = [journal for journal in journals_of(path.parent, run).get(run, ()) if read_header(journal) is not None]
    if not begun:
        raise UsageError(f"{path} is not a journal of embedcore: it is empty or does not exist")
    return begun


def last_run(folder: Path) -> Path:
    """Return a journal of the most recently written run in `folder`. Raises UsageError if there is none."""
    damaged = []
    for paths in journals_of(folder).values():
        for path in paths:
            try:
                if read_header(path) is not None:
                    return path
            except UsageError as error:
                damaged.append(str(error))
    why = f": {damaged[0]}" if damaged else ""
    raise UsageError(f"no run has been measured with the cache folder {folder.parent}: {folder} has no journal{why}")


def read_parts(
    name: str | Path, note: Callable[[str], object] = lambda line: None, *, several: bool = False
) -> list[tuple[Path, Any]]:
    """Return path and content of the saved run of that name (see `find_run`), or of each one under a folder.

    A folder of `--embed-claim` is one run; `note` gets lines about its journals. Other JSON files in a folder are
    ignored. Raises UsageError if there is no run, if a file is damaged, and for pytest-benchmark's own storage, which
    contains many runs, unless `several` are wanted.
    """
    where = find_run(name)
    if not where.is_dir():
        return [(where, read_data(where))]
    if is_shared(where):
        record = read_claimed(where)
        if not record.planned:
            raise UsageError(f"{where}: no worker has begun the run yet")
        for line in record.warnings:
            note(line)
        return [(where / RUN, record.data())]
    files = sorted(where.rglob("*.json"))
    numbered = [file for file in files if re.match(r"\d{4,}_", file.name)]
    is_storage = STORAGE.name in (where.resolve().name, where.resolve().parent.name)
    many = [file for file in numbered if is_storage or sum(file.parent == other.parent for other in numbered) > 1]
    if len(many) > 1 and not several:
        raise UsageError(
            f"{where} contains {len(many)} runs saved by pytest-benchmark: name one, such as {many[-1].stem}, or pass "
            "the shards of one session to embedcore merge"
        )
    found = [(file, data) for file in files if is_run(data := read_json(file))]
    if not found:
        others = f"none of its {len(files)} .json files is one" if files else "it contains no .json file"
        raise UsageError(f"{where} contains no run saved with embedcore: {others}")
    return found


def read_baseline(where: str, *, option: str, storage: str | Path = STORAGE) -> Run:
    """Read the saved run to compare with, as `read_run` does.

    Raises UsageError that also names `option`, which asks for a first run, if nothing has been saved there yet.
    """
    if is_first_run(where, storage=Path(storage)):
        raise UsageError(f"nothing is saved at {where} yet, so there is no baseline: {option} accepts a first run")
    return read_run(where, storage=storage)


def is_first_run(where: str | Path, *, storage: Path = STORAGE) -> bool:
    """Whether nothing has been saved yet at `where`: a first run without a baseline, not a mistyped name."""
    path = user_path(where)
    if path.exists():
        return path.is_dir() and not any(path.rglob("*.json"))
    is_path = path.suffix == ".json" or len(path.parts) > 2
    return not any((path.parent if is_path else storage).rglob("*.json"))


def find_run(where: str | Path, *, storage: str | Path = STORAGE) -> Path:
    """Return the file or folder that `where` names.

    `where` is a path; or, inside `storage`, the ``NAME`` of ``<machine>/NNNN_NAME.json`` (the highest number if there
    are several), ``NNNN_NAME`` or ``NNNN``, each also with ``<machine>/`` in front.

    Raises UsageError if there is none (listing the names that exist) or if several machines have one.
    """
    if not isinstance(where, str | os.PathLike):
        raise UsageError(f"a saved run is a path or a name, not a {type(where).__name__}")
    path, storage = user_path(where), user_path(storage)
    try:
        if path.is_file() or path.is_dir():
            return path
    except OSError as error:
        raise UsageError(f"no saved run {str(where)[:200]}: {error.strerror}") from error
    machine, _, name = str(where).rpartition("/")
    name = name.removesuffix(".json")
    saved = [file for file in storage.glob("*/*.json") if not machine or file.parent.name == machine]
    found = [file for file in saved if name in _names(file)]
    if not found:
        names = sorted({_names(file)[-1] for file in saved})
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        listed = f"did you mean {', '.join(close)}?" if close else f"saved runs: {', '.join(names[:10]) or 'none'}"
        raise UsageError(f"no saved run {where}: neither a file nor {storage}/<machine>/NNNN_{name}.json; {listed}")
    machines = sorted({file.parent.name for file in found})
    if len(machines) > 1:
        raise UsageError(
            f"several machines in {storage} have a saved run {where}: name one, "
            + " or ".join(f"{m}/{name}" for m in machines)
        )
    return max(found, key=lambda file: int(_names(file)[1]) if len(_names(file)) > 1 else -1)


def _names(file: Path) -> tuple[str, ...]:
    """Return the names by which a saved file can be found, the one from --benchmark-save last."""
    numbered = re.match(r"(\d{4,})_(.+)", file.stem, flags=re.DOTALL)
    return (file.stem, numbered[1], numbered[2]) if numbered else (file.stem,)


def read_json(path: Path) -> object:
    """Return the content of a JSON file. Raises UsageError, naming the file, if it cannot be read or is not JSON."""
    try:
        content = path.read_bytes()
        try:
            data: object = msgspec.json.decode(content)  # twice as fast
        except msgspec.DecodeError:
            data = json.loads(content)  # which also reads NaN
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {one_line(str(error))[:100]}") from error
    return data
