"""A run: the results of one pytest session, as saved in one pytest-benchmark JSON."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from embedcore.errors import UsageError
from embedcore.frames import import_pandas
from embedcore.plain import counted, one_line
from embedcore.results.ranking import ModelRank, Rankings, rank_if_possible
from embedcore.results.result import InvalidResultError, Result
from embedcore.results.saved import SCHEMA


@dataclass(frozen=True)
class Run:
    """The contents of one saved run. The mappings have the shapes of the saved JSON."""

    path: Path
    results: tuple[Result, ...]
    """Status ok, in the order of the file."""
    excluded: tuple[Result, ...]
    """The cases that could not be measured, with only model, family, status and reason."""
    settings: Mapping[str, Any]
    dataset: Mapping[str, Any]
    """``name`` ``fingerprint`` ``classes`` ``queries`` ``references`` ``acc5_ceiling`` ``chance_acc`` …"""
    machine: Mapping[str, Any]
    """pytest-benchmark's ``machine_info``, with `versions` under ``embedcore``."""
    datetime: str | None
    commit: str | None = None
    """The commit of the repository in which it was measured."""
    unreached: frozenset[str] = frozenset()
    """Planned cases that the session did not reach."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """The selection of cases: ``roster`` ``family`` ``keyword`` (pytest's ``-k``) ``shard``, and
    ``other_shards``, the models of the other shards."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Old timm name → new name, for models of this run."""
    noise: float | None = None
    """Standard deviation of the log speed ratio of two identical processes, if `ab --aa` has measured it."""
    ranking: tuple[ModelRank, ...] = ()
    """The saved ranking by acc, best first, on `dataset` only."""
    datasets: tuple[Mapping[str, Any], ...] = ()
    """All datasets, if a benchmark of the user's own has measured on several."""

    repeats: tuple[Result, ...] = ()
    """Earlier measurements of cases that were measured more than once, if their scores, embeddings, status or settings
    differ from those of the last one, which is in `results` or `excluded`."""

    def __repr__(self) -> str:
        names = [str(block.get("name")) for block in self.blocks]
        on = f" on {', '.join(names)}" if self.results or self.excluded else ""
        others = f", {len(self.excluded):,} not" if self.excluded else ""
        return f"Run {self.name!r}{on}: {counted(len(self.results), 'model')} measured{others}"

    def case_name(self, result: Result) -> str:
        """Return the name of a result's case: its model, with the name of the dataset if there are several."""
        names = {block.get("fingerprint"): block.get("name") for block in self.datasets}
        return f"{result.model} on {names.get(result.dataset)}" if len(names) > 1 else result.model

    def on(self, dataset: Mapping[str, Any] | None) -> Run:
        """Return this run reduced to one of its datasets; for None, without results."""
        if dataset is None:
            return replace(self, results=(), excluded=(), repeats=(), dataset={}, datasets=(), ranking=())
        if len(self.datasets) < 2:
            return self
        wanted, first = dataset.get("fingerprint"), self.dataset.get("fingerprint")
        here = (wanted, None) if wanted == first else (wanted,)
        return replace(
            self,
            results=tuple(result for result in self.results if result.dataset in here),
            excluded=tuple(result for result in self.excluded if result.dataset in here),
            repeats=tuple(result for result in self.repeats if result.dataset in here),
            dataset=dataset,
            datasets=(),
            ranking=self.ranking if wanted == first else (),
        )

    @property
    def blocks(self) -> tuple[Mapping[str, Any], ...]:
        """The block of each dataset."""
        return self.datasets if len(self.datasets) > 1 else (self.dataset,)

    def by_dataset(self) -> list[tuple[Mapping[str, Any], list[Result]]]:
        """Return each dataset's block with the results measured on it."""
        return [(block, list(self.on(block).results)) for block in self.blocks]

    def rankings(self) -> dict[str, Rankings]:
        """Return the rankings on each dataset, by fingerprint, computed from the verdicts."""
        return {
            str(dataset.get("fingerprint")): rank_if_possible(results, dataset)
            for dataset, results in self.by_dataset()
        }

    @property
    def processor(self) -> str | None:
        """The device of the models: the card, or the processor and its threads."""
        return self.versions.get("gpu") or self.versions.get("processor")

    @property
    def unlike(self) -> bool:
        """Whether it was merged from different machines; each result then names its own."""
        return any(result.processor is not None for result in self.results)

    @property
    def machines(self) -> frozenset[str]:
        """The processors or cards, each with its driver, on which it was measured."""
        return frozenset(result.processor or machine_of(self.versions) for result in self.results) or frozenset(
            {machine_of(self.versions)}
        )

    def of_machines(self) -> Run:
        """Return this run with the machine in each result."""
        named = (msgspec.structs.replace(r, processor=r.processor or machine_of(self.versions)) for r in self.results)
        return replace(self, results=tuple(named))

    @property
    def name(self) -> str:
        """The name from `--benchmark-save`, or the file's."""
        return re.sub(r"^\d{4,}_", "", self.path.stem)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, one measured model a row: the fields of `Result`, mappings as ``scores.acc``.

        Raises UsageError if pandas is not installed.
        """
        return import_pandas().json_normalize([result.extra_info() for result in self.results])

    @property
    def versions(self) -> Mapping[str, Any]:
        """``timm`` ``torch`` ``cuda`` ``cudnn`` ``driver`` ``gpu`` ``python``, as far as they were recorded."""
        versions = self.machine.get("embedcore")
        return {key: versions[key] for key in versions if key != "requirements"} if isinstance(versions, dict) else {}

    @property
    def requirements(self) -> tuple[str, ...]:
        """Exact requirements of its environment; () if they were not recorded."""
        facts = self.machine.get("embedcore")
        found = facts.get("requirements") if isinstance(facts, dict) else None
        return tuple(filter(lambda each: isinstance(each, str), found)) if isinstance(found, list) else ()

    @property
    def timm(self) -> str | None:
        """Version of timm that the run was measured with."""
        version = self.versions.get("timm")
        return version if isinstance(version, str) else None


def machine_of(versions: Mapping[str, Any]) -> str:
    """Return the processor or card and the driver of a run.

    >>> machine_of({"gpu": "H100", "driver": "570"})
    'H100, driver 570'
    """
    driver = versions.get("driver")
    return f"{versions.get('gpu') or versions.get('processor')}" + (f", driver {driver}" if driver else "")


def versions_of_machines(versions: Mapping[str, Any], machines: Collection[str]) -> dict[str, Any]:
    """Return the facts of a run on these distinct machines (see `machine_of`), from those of one of them."""
    if len(machines) < 2:
        return dict(versions)
    return {**versions, "gpu": None, "driver": None, "processor": "; ".join(sorted(machines))}


def is_run(data: object) -> bool:
    """Whether a JSON is a run of embedcore, possibly damaged, and not another file such as a leaderboard."""
    return isinstance(data, dict) and "benchmarks" in data and isinstance(data.get("embedcore"), dict)


def extra_info_of(bench: object) -> dict[str, Any]:
    """Return the ``extra_info`` of a saved benchmark; {} if it has none."""
    info = bench.get("extra_info") if isinstance(bench, dict) else None
    return info if isinstance(info, dict) else {}


def is_case(info: Mapping[str, Any]) -> bool:
    """Whether an ``extra_info`` is of one of our cases; a session may have other benchmarks as well."""
    return {"model", "status"} <= info.keys()


def run_of(data: object, path: Path) -> Run:
    """Return the run in a saved JSON; `path` is for messages. Raises UsageError as `read_run` does."""
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
    infos = map(extra_info_of, data["benchmarks"])
    excluded = block.get("excluded", [])
    if not isinstance(excluded, list):
        raise UsageError(f"{path}: 'excluded' of the embedcore block is not a list")
    try:
        results = [Result.from_json(info) for info in infos if is_case(info)]
        results += [Result.from_json(entry) for entry in excluded]
    except InvalidResultError as error:
        raise UsageError(f"{path}: {error}") from error
    results, repeats = _last_and_earlier(results)
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
        repeats=repeats,
    )


_TIMED = ("device", "engine", "precision", "batch_size", "point", "channels_last")
_timed = attrgetter(*_TIMED)
_judged = attrgetter(
    *_TIMED, "status", "scores", "verdicts", "probe_verdicts", "sketch", "weights", "dim", "transform", "input_size"
)


def _last_and_earlier(results: Iterable[Result]) -> tuple[list[Result], tuple[Result, ...]]:
    """Return the last measurement of each case, with the timing of all, and the earlier ones that differ.

    A session may measure a case more than once (pytest-repeat, two tests of one model).
    """
    cases: dict[tuple[str, str | None], list[Result]] = {}
    for result in results:
        cases.setdefault((result.model, result.dataset), []).append(result)
    last, earlier = [], []
    for *before, result in cases.values():
        timed = [each for each in before if _timed(each) == _timed(result)]
        processes = tuple(process for each in (*timed, result) for process in each.processes)
        last.append(msgspec.structs.replace(result, processes=processes) if timed else result)
        earlier += [each for each in before if _judged(each) != _judged(result)]
    return last, tuple(earlier)


def _ranking(path: Path, block: Mapping[str, Any]) -> tuple[ModelRank, ...]:
    """Return the saved ranking, on the first dataset if there are several."""
    saved, first = block.get("ranking") or [], block.get("dataset")
    fingerprint = first.get("fingerprint") if isinstance(first, dict) else None
    if isinstance(saved, list):
        saved = [entry for entry in saved if not isinstance(entry, dict) or entry.get("dataset") in (None, fingerprint)]
    try:
        return msgspec.convert(saved, tuple[ModelRank, ...])
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: 'ranking' of the embedcore block: {one_line(str(error))[:150]}") from error


def _mapping(path: Path, block: Mapping[str, object], key: str) -> Mapping[str, Any]:
    value = block.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {key!r} of the embedcore block is not an object")
    return value
