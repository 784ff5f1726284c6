"""A run: the results of one pytest session, as saved in one pytest-benchmark JSON."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.plain import json_safe, one_line
from embedcore.results.result import Count, InvalidResultError, Result

SCHEMA = 1
"""Number of the top-level ``embedcore`` block; raised when a reader of the old one would misread the new one."""

STORAGE = Path(".benchmarks")
"""Where pytest-benchmark saves by default, as ``<machine>/NNNN_<name>.json``."""


class Standing(msgspec.Struct, frozen=True):
    """Where a model stands by acc, and how sure that is: see `embedcore.results.ranking`."""

    model: str
    rank: Count
    """Models of equal acc share the better rank."""
    rank95: tuple[Count, Count]
    """Best and worst rank that are possible; the intervals of all models hold at once with a chance of 95 %."""
    p_best: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Share of the resamples of the classes in which no model is better; models that are equal there share it."""
    tied_with_leader: bool
    """Whether no model is surely better, while that is true of another one too."""


@dataclass(frozen=True)
class Run:
    """What one saved run holds. The mappings have the shapes of the saved JSON."""

    path: Path
    results: tuple[Result, ...]
    """Status ok, in the order of the file."""
    excluded: tuple[Result, ...]
    """The cases that could not be measured; only model, family, status and reason are known of them."""
    settings: Mapping[str, Any]
    dataset: Mapping[str, Any]
    """``name`` ``fingerprint`` ``classes`` ``queries`` ``references`` ``acc5_ceiling`` ``chance_acc`` …"""
    machine: Mapping[str, Any]
    """pytest-benchmark's ``machine_info``, with `versions` under ``embedcore``."""
    datetime: str | None
    commit: str | None = None
    """Of the repository in which it was measured."""
    unreached: frozenset[str] = frozenset()
    """The cases that the session was to run and that it ended before."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """What narrowed the cases: ``roster`` ``family`` ``keyword`` (pytest's ``-k``) ``shard``."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Timm's old name to the new one, of the models of this run."""
    noise: float | None = None
    """Standard deviation of the log of a speed ratio between two processes that run the same, if `ab --aa` found it."""
    ranking: tuple[Standing, ...] = ()
    """By acc, as it was saved, the best first; on `dataset` alone."""
    datasets: tuple[Mapping[str, Any], ...] = ()
    """Where a benchmark of the user's own has measured on several, all of them."""

    def on_first_dataset(self) -> Run:
        """This run with what was measured on `dataset` alone, which is all of it where there is one dataset."""
        if len(self.datasets) < 2:
            return self
        first = self.dataset.get("fingerprint")
        return replace(
            self,
            results=tuple(result for result in self.results if result.dataset == first),
            excluded=tuple(result for result in self.excluded if result.dataset in (first, None)),
            datasets=(),
        )

    @property
    def processor(self) -> str | None:
        """What the models ran on: the card, or the processor and its threads."""
        return self.versions.get("gpu") or self.versions.get("processor")

    @property
    def name(self) -> str:
        """The name that `--benchmark-save` gave, or the file's own."""
        return re.sub(r"^\d{4,}_", "", self.path.stem)

    def to_frame(self) -> Any:
        """A pandas DataFrame of the measured models, one a row: the fields of `Result`, mappings as ``scores.acc``.

        Raises UsageError where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("a DataFrame needs pandas, which is not installed: pip install pandas") from error
        return pandas.json_normalize([result.extra_info() for result in self.results])

    @property
    def versions(self) -> Mapping[str, Any]:
        """``timm`` ``torch`` ``cuda`` ``cudnn`` ``driver`` ``gpu`` ``python``, as far as they were recorded."""
        versions = self.machine.get("embedcore")
        return versions if isinstance(versions, dict) else {}

    @property
    def timm(self) -> str | None:
        """Version of timm that the run was measured with."""
        version = self.versions.get("timm")
        return version if isinstance(version, str) else None


def embedcore_block(
    *, settings: Mapping[str, object], datasets: Sequence[Mapping[str, object]], excluded: Iterable[Result]
) -> dict[str, Any]:
    """The top-level ``embedcore`` block of the saved JSON; `read_run` is its inverse.

    `datasets`: that of the session first. Where a benchmark of the user's own has measured on more, all are under
    ``datasets``, and excluded models name theirs, as the measured ones do, by its fingerprint.
    """
    several = len(datasets) > 1
    block = {
        "schema": SCHEMA,
        "settings": json_safe(settings),
        "dataset": json_safe(datasets[0] if datasets else {}),
        "excluded": [result.excluded_info() | ({"dataset": result.dataset} if several else {}) for result in excluded],
    }
    return block | ({"datasets": json_safe(datasets)} if several else {})


def read_run(where: str | Path, *, storage: str | Path = STORAGE) -> Run:
    """The run saved at `where`: a file, a journal too; a folder of the files of one run; or a name as
    `--benchmark-save` makes it (see `find_run`).

    Raises UsageError, with one line that names the file, if it is not JSON, not pytest-benchmark's, was saved without
    embedcore, or by an embedcore whose schema this one does not know.
    """
    path = find_run(where, storage=storage)
    if path.is_dir():
        from embedcore.results.merge import read_folder

        return read_folder(path)
    return run_of(read_data(path), path)


def read_data(path: Path) -> object:
    """What a saved JSON holds; of a journal, what its session would have saved. Raises UsageError."""
    if path.suffix != ".jsonl":
        return read_json(path)
    from embedcore.results.from_journal import read_journal_data

    return read_journal_data(path)


def is_run(data: object) -> bool:
    """Whether a JSON is meant to be a run of embedcore, be it damaged; others, such as a leaderboard, are not."""
    return isinstance(data, dict) and "benchmarks" in data and isinstance(data.get("embedcore"), dict)


def run_of(data: object, path: Path) -> Run:
    """The run that a saved JSON holds; `path` is for messages. Raises UsageError as `read_run` does."""
    if not isinstance(data, dict) or not isinstance(data.get("benchmarks"), list) or "machine_info" not in data:
        raise UsageError(f"{path} is not a run saved by pytest-benchmark: it has no 'benchmarks' and 'machine_info'")
    block = data.get("embedcore")
    if not isinstance(block, dict):
        raise UsageError(f"{path} was saved by pytest-benchmark without embedcore: it has no 'embedcore' block")
    if block.get("schema") != SCHEMA:
        raise UsageError(
            f"{path} has embedcore schema {one_line(str(block.get('schema')))[:40]}, and this embedcore reads schema "
            f"{SCHEMA}: read it with the embedcore that saved it, or a newer one"
        )
    infos = [bench.get("extra_info") for bench in data["benchmarks"] if isinstance(bench, dict)]
    excluded = block.get("excluded", [])
    if not isinstance(excluded, list):
        raise UsageError(f"{path}: 'excluded' of the embedcore block is not a list")
    try:
        # A session may benchmark other things as well; what has no model and status is not a case of ours.
        results = [
            Result.from_json(info) for info in infos if isinstance(info, dict) and {"model", "status"} <= {*info}
        ]
        results += [Result.from_json(entry) for entry in excluded]
    except InvalidResultError as error:
        raise UsageError(f"{path}: {error}") from error
    results = list({(result.model, result.dataset): result for result in results}.values())  # measured twice: the last
    machine, datetime = data["machine_info"], data.get("datetime")
    commit = info.get("id") if isinstance(info := data.get("commit_info"), dict) else None
    return Run(
        path=path,
        results=tuple(result for result in results if result.ok),
        excluded=tuple(result for result in results if not result.ok),
        settings=_mapping(path, block, "settings"),
        dataset=_mapping(path, block, "dataset"),
        machine=machine if isinstance(machine, dict) else {},
        datetime=datetime if isinstance(datetime, str) else None,
        commit=commit if isinstance(commit, str) else None,
        unreached=frozenset(filter(lambda name: isinstance(name, str), block.get("unreached") or ())),
        selection=_mapping(path, block, "selection"),
        renamed=_mapping(path, block, "renamed"),
        noise=block["noise"] if isinstance(block.get("noise"), float) and 0 < block["noise"] < 1 else None,
        ranking=_ranking(path, block),
        datasets=tuple(filter(lambda each: isinstance(each, dict), block.get("datasets") or ())),
    )


def is_first_run(where: str | Path, *, storage: Path = STORAGE) -> bool:
    """Whether nothing at all is saved where `where` should be: then a baseline is still to be made, not mistyped."""
    path = user_path(where)
    if path.exists():
        return path.is_dir() and not any(path.rglob("*.json"))
    is_path = path.suffix == ".json" or len(path.parts) > 2
    return not any((path.parent if is_path else storage).rglob("*.json"))


def find_run(where: str | Path, *, storage: str | Path = STORAGE) -> Path:
    """The file of the run that `where` means, or the folder of its files.

    `where` is the path of a file or folder; or, inside `storage`, ``NAME`` of ``<machine>/NNNN_NAME.json`` (the highest
    number if it was saved more than once), ``NNNN_NAME``, ``NNNN``, or one of these with ``<machine>/`` in front.

    Raises UsageError if there is none (it lists the names that there are), or if several machine folders have one.
    """
    if not isinstance(where, str | os.PathLike):
        raise UsageError(f"a {type(where).__name__} is no saved run: give the path of a file or folder, or a name")
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
        listed = f"did you mean {', '.join(close)}?" if close else f"there is {', '.join(names[:10]) or 'nothing'}"
        raise UsageError(f"no saved run {where}: neither a file, nor in {storage}/<machine>/NNNN_{name}.json; {listed}")
    machines = sorted({file.parent.name for file in found})
    if len(machines) > 1:
        raise UsageError(
            f"saved run {where} is in {storage} for several machines: say which, "
            + " or ".join(f"{m}/{name}" for m in machines)
        )
    return max(found, key=lambda file: int(file.stem.split("_")[0]) if file.stem[:4].isdecimal() else -1)


def _names(file: Path) -> tuple[str, ...]:
    """By which names a saved file can be asked for, the one given by the user last."""
    numbered = re.match(r"(\d{4,})_(.+)", file.stem, flags=re.DOTALL)
    return (file.stem, numbered[1], numbered[2]) if numbered else (file.stem,)


def read_json(path: Path) -> object:
    """What the file holds. Raises UsageError, with one line that names it, if it cannot be read or is not JSON."""
    try:
        data: object = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {one_line(str(error))[:100]}") from error
    return data


def _ranking(path: Path, block: Mapping[str, Any]) -> tuple[Standing, ...]:
    """That of the first dataset, where there are several."""
    saved, first = block.get("ranking") or [], block.get("dataset")
    fingerprint = first.get("fingerprint") if isinstance(first, dict) else None
    if isinstance(saved, list):
        saved = [entry for entry in saved if not isinstance(entry, dict) or entry.get("dataset") in (None, fingerprint)]
    try:
        return msgspec.convert(saved, tuple[Standing, ...])
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: 'ranking' of the embedcore block: {one_line(str(error))[:150]}") from error


def _mapping(path: Path, block: Mapping[str, object], key: str) -> Mapping[str, Any]:
    value = block.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {key!r} of the embedcore block is not an object")
    return value
