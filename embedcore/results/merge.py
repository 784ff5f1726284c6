"""Merge several saved runs into one: the shards of a session, or sessions over different models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedcore.errors import UsageError
from embedcore.files import writing
from embedcore.plain import differences, one_line
from embedcore.results.ranking import ranking_block
from embedcore.results.result import Result
from embedcore.results.run import Run, extra_info_of, is_case, machine_of, run_of, versions_of_machines

# Settings that only choose models.
_CHOICE = frozenset({"roster", "family", "roster_missing"})
VERSIONS = ("timm", "torch", "cuda", "cudnn", "python")
"""Facts of a machine in which the parts of a run must agree."""

_Data = dict[str, Any]
_Key = tuple[str, str | None]


class Merged(NamedTuple):
    """The JSON of the merged run, in pytest-benchmark's format, and notes on how conflicts were resolved."""

    data: _Data
    notes: tuple[str, ...]


class _Part(NamedTuple):
    data: _Data
    run: Run


class _Entry(NamedTuple):
    path: Path
    result: Result


def merge(parts: Sequence[tuple[Path, Any]], *, allow_missing: bool = False) -> Merged:
    """Merge the JSON of several sessions, without a ranking; `parts` are (path, content), with distinct paths.

    If the machines differ, each result names its own, and speeds of two machines are not compared.

    Raises UsageError, which names the file, if one is not a run, if settings, dataset or versions differ, if a model
    was measured twice, and if a shard is missing, unless `allow_missing`.
    """
    read = [_Part(data, run_of(data, path)) for path, data in parts]
    # An empty shard has no settings or dataset to compare.
    filled = [part for part in read if part.run.results or part.run.excluded or part.run.settings]
    if not filled:
        raise UsageError(f"nothing to merge: {', '.join(str(path) for path, _ in parts) or 'no file'} without results")
    first = filled[0]
    for part in filled[1:]:
        check_alike(first.run, part.run)
    notes: list[str] = []
    several = len(_fingerprints(first.run)) > 1
    kept: dict[_Key, _Entry] = {}
    for part in read:
        for result in (*part.run.results, *part.run.excluded):
            key = result.model, str(result.dataset) if several else None
            kept[key] = _better(kept.get(key), _Entry(part.run.path, result), notes)

    def stands(part: _Part, entry: Mapping[str, Any]) -> bool:
        dataset = one_line(str(entry.get("dataset"))) if several else None
        return kept[one_line(str(entry["model"])), dataset].path == part.run.path

    shard = _shards_together([part.run for part in read], notes, allow_missing=allow_missing)
    block = first.data["embedcore"] | {
        "settings": {**first.run.settings, **join([part.run.settings for part in filled], ("roster", "family"))},
        "excluded": [e for part in read for e in part.data["embedcore"].get("excluded", ()) if stands(part, e)],
        "selection": join_selections([part.run.selection for part in filled]) | {"shard": shard},
        "unreached": sorted({m for part in read for m in part.run.unreached} - {model for model, _ in kept}),
        "renamed": {old: now for part in read for old, now in part.run.renamed.items()},
    }
    block.pop("ranking", None)  # of the first part alone
    noises = [part.run.noise for part in read if part.run.noise is not None]
    commits = {str((part.data.get("commit_info") or {}).get("id")) for part in filled}
    if len(commits) > 1:
        notes.append(f"the files are of {len(commits)} commits; commit_info is that of {first.run.path}")
    machines = sorted({machine for part in filled for machine in part.run.machines})
    if len(machines) > 1:
        notes.append(f"the files are of {len(machines)} machines, whose speeds do not compare: {'; '.join(machines)}")
        read = [_with_machine(part) for part in read]
    data = first.data | {
        "benchmarks": list(_benchmarks(read, stands)),
        "datetime": max((part.run.datetime for part in read if part.run.datetime), default=None),
        "embedcore": block | ({"noise": max(noises)} if noises else {}),
    }
    if len(machines) > 1:
        versions = versions_of_machines(first.run.versions, machines)
        data["machine_info"] = {**data["machine_info"], "embedcore": versions}
    return Merged(data, tuple(notes))


def _with_machine(part: _Part) -> _Part:
    """Return a part with the machine in the ``extra_info`` of each result."""
    named = {"processor": machine_of(part.run.versions)}
    benchmarks = []
    for bench in part.data["benchmarks"]:
        info = extra_info_of(bench)
        if is_case(info) and info.get("processor") is None:
            bench = bench | {"extra_info": info | named}
        benchmarks.append(bench)
    return part._replace(data=part.data | {"benchmarks": benchmarks})


def write_run(data: Any, path: Path, option: str) -> None:
    """Save a run assembled from files or a journal, with the certainty of its ranks; `option` is named in errors.

    Raises UsageError.
    """
    data["embedcore"]["ranking"] = ranking_block(run_of(data, path).rankings())
    with writing(path, option) as file:
        file.write(json.dumps(data, indent=4).encode("ascii"))


def check_alike(first: Run, other: Run) -> None:
    """Raise UsageError if two runs differ in settings, dataset or versions."""
    sides = [
        {
            "settings": {key: value for key, value in run.settings.items() if key not in _CHOICE},
            "versions": {key: run.versions.get(key) for key in VERSIONS},
            "dataset": {"fingerprint": _fingerprints(run)},
        }
        for run in (first, other)
    ]
    for what, ours in sides[0].items():
        differing = differences(ours, sides[1][what])
        if differing:
            raise UsageError(
                f"{other.path} does not belong to {first.path}: another {what.removesuffix('s')}: "
                + "; ".join(differing)
            )


def must_agree(settings: Mapping[str, Any], versions: Mapping[str, Any]) -> _Data:
    """Return the settings and versions that are equal in all parts of a merged run."""
    same = {key: value for key, value in settings.items() if key not in _CHOICE}
    return same | {key: versions.get(key) for key in VERSIONS}


def _fingerprints(run: Run) -> list[object]:
    return [block.get("fingerprint") for block in run.blocks]


def _better(before: _Entry | None, now: _Entry, notes: list[str]) -> _Entry:
    """Return which of two results of a model to keep. Raises UsageError if both are measurements."""
    if before is None or before.path == now.path:
        return now
    stands, falls = (now, before) if now.result.ok and not before.result.ok else (before, now)
    # One machine had the weights and the other did not; the saved JSON does not record whether a hub was asked.
    may_fall = not falls.result.final or falls.result.status in ("no-weights", stands.result.status)
    if falls.result.ok or (stands.result.ok and not may_fall):
        states = " and ".join(f"{entry.result.status} in {entry.path}" for entry in (before, now))
        raise UsageError(f"{now.result.model} was measured twice: {states}")
    notes.append(
        f"{now.result.model}: kept {stands.result.status} from {stands.path}, "
        f"dropped {falls.result.status} from {falls.path}"
    )
    return stands


def _benchmarks(parts: Iterable[_Part], stands: Callable[[_Part, _Data], bool]) -> Iterator[_Data]:
    """Yield the benchmarks to keep; a user's other benchmark is kept once, since it runs in every shard."""
    seen: set[object] = set()
    for part in parts:
        others = set()
        for bench in part.data["benchmarks"]:
            info = extra_info_of(bench)
            if is_case(info):
                if stands(part, info):
                    yield bench
            elif isinstance(bench, dict) and bench.get("fullname") not in seen:
                others.add(bench.get("fullname"))
                yield bench
        seen |= others


def join(mappings: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> _Data:
    """Return the values of several mappings; where they differ, lists are concatenated and texts joined by commas."""
    joined: _Data = {}
    for name in names or dict.fromkeys(name for mapping in mappings for name in mapping):
        values = [mapping.get(name) for mapping in mappings]
        if all(value == values[0] for value in values):
            joined |= {name: values[0]} if name in mappings[0] else {}
        elif len(lists := [value for value in values if isinstance(value, list)]) == len(values):
            # An empty value selects everything.
            joined[name] = sorted({str(item) for value in lists for item in value}) if all(lists) else []
        else:
            joined[name] = ", ".join(dict.fromkeys(str(value) for value in values))
    return joined


def join_selections(selections: Sequence[Mapping[str, Any]]) -> _Data:
    """Return the joined selections; ``other_shards`` keeps the models that all parts list there."""
    joined = join([{key: of for key, of in each.items() if key != "other_shards"} for each in selections])
    others = [set(map(str, each["other_shards"])) for each in selections if isinstance(each.get("other_shards"), list)]
    return joined | ({"other_shards": sorted(set.intersection(*others))} if len(others) == len(selections) else {})


def _shards_together(runs: Sequence[Run], notes: list[str], *, allow_missing: bool) -> str | None:
    """Return ``shard`` of the merged run, such as ``1+2/8``; None if all parts are present. Raises UsageError."""
    parts: set[int] = set()
    total, where = 0, Path()
    for run in runs:
        text = run.selection.get("shard")
        if text is None:
            continue
        found = re.fullmatch(r"(\d{1,6}(?:\+\d{1,6})*)/(\d{1,6})", text) if isinstance(text, str) else None
        if found is None:
            raise UsageError(f"{run.path}: shard {str(text)[:40]!r} does not have the form 2/8")
        if total and int(found[2]) != total:
            raise UsageError(f"{run.path} is shard {text}, and {where} is one of {total}: they do not belong together")
        total, where = int(found[2]), run.path
        parts |= {int(number) for number in found[1].split("+")}
    missing = [number for number in range(1, total + 1) if number not in parts]
    if not missing:
        return None
    listed = ", ".join(f"{number}/{total}" for number in missing[:20]) + (", …" if len(missing) > 20 else "")
    line = f"shard {listed} {'is' if len(missing) == 1 else 'are'} missing"
    if not allow_missing:
        raise UsageError(f"{line}; --allow-missing merges the others")
    notes.append(line)
    return f"{'+'.join(map(str, sorted(parts)))}/{total}"
