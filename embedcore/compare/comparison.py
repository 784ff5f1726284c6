"""The comparison of two runs: every quantity of every model before and after, with tests and intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import msgspec

from embedcore.compare import statistics
from embedcore.compare.causes import causes_of, memory_noise, rounding
from embedcore.compare.degraded import degradations, excused_of, fewer_threads
from embedcore.compare.pairs import (
    Pair,
    Pairing,
    dataset_pairs,
    drift_of,
    machines_named,
    match,
    pair_barriers,
    run_barriers,
)
from embedcore.compare.scores import Change, score_changes
from embedcore.compare.timings import Speeds, joined, speeds_of
from embedcore.plain import differences
from embedcore.results.headline import LABELLED, UNLABELLED
from embedcore.results.run import Run


@dataclass(frozen=True)
class ModelChange:
    """One model of both runs."""

    pair: Pair
    changes: tuple[Change, ...]
    causes: tuple[str, ...]
    """Likely causes, most informative first."""
    barriers: Mapping[str, str]
    """``scores``, ``speed`` (and memory) or ``images_per_s`` → why they were not compared, or not with certainty."""

    @property
    def model(self) -> str:
        return self.pair.model

    @property
    def family(self) -> str:
        return self.pair.new.family


class FamilyChange(NamedTuple):
    """A family: number of models, geometric mean of speed ratios, mean change of the first headline score (positive:
    better)."""

    family: str
    models: int
    speed_ratio: float | None
    acc_change: float | None


class RankChange(NamedTuple):
    """A model whose rank left both 95 % intervals, by more than added or missing models account for."""

    model: str
    base: tuple[int, int, int]
    """rank, best, worst"""
    new: tuple[int, int, int]


@dataclass(frozen=True)
class Comparison:
    """Two runs and all their differences."""

    base: Run
    new: Run
    pairing: Pairing
    models: tuple[ModelChange, ...]
    barriers: Mapping[str, str]
    """``scores`` or ``speed`` → why they were not compared for any model."""
    speeds: Speeds
    """How speeds were compared."""
    threads: Change | None = None
    """Change of the number of threads, if the new run had fewer on the same processor."""
    families: tuple[FamilyChange, ...] = ()
    ranks: tuple[RankChange, ...] = ()
    settings: tuple[str, ...] = ()
    """Settings and versions that differ."""

    @property
    def compared(self) -> int:
        """Number of models with at least one measured quantity that was compared."""
        return sum(any(map(_is_compared, model.changes)) for model in self.models if not model.pair.measurement)


def _is_compared(change: Change) -> bool:
    return change.what not in ("status", "degraded") and (change.what != "images_per_s" or change.low is not None)


def compare(base: Run, new: Run, *, across_machines: bool = False) -> Comparison:
    """Compare two runs case by case; with several datasets, on those of equal content or name.

    Raises UsageError for a run with damaged verdicts or sketches.
    """
    base, new = machines_named((base, new))
    datasets = dataset_pairs(base, new)
    parts = [_compare(base.on(old), new.on(now), across_machines=across_machines) for old, now in datasets]
    if len(parts) == 1:
        return parts[0]
    names = [str((now or old or {}).get("name")) for old, now in datasets]
    return _joined(base, new, [_named(part, name) for part, name in zip(parts, names, strict=True)])


def _named(part: Comparison, dataset: str) -> Comparison:
    """Return a comparison with the dataset in the names of its cases and barriers."""
    pairing = part.pairing
    return replace(
        part,
        pairing=Pairing(
            tuple(replace(pair, dataset=dataset) for pair in pairing.pairs),
            *(
                tuple(msgspec.structs.replace(case, model=f"{case.model} on {dataset}") for case in cases)
                for cases in (pairing.added, pairing.missing, pairing.unreached, pairing.deselected)
            ),
        ),
        models=tuple(
            replace(model, pair=replace(model.pair, dataset=dataset), barriers={**model.barriers, **part.barriers})
            for model in part.models
        ),
        ranks=tuple(rank._replace(model=f"{rank.model} on {dataset}") for rank in part.ranks),
    )


def _joined(base: Run, new: Run, parts: Sequence[Comparison]) -> Comparison:
    """Return the comparisons on several datasets as one."""
    models = tuple(model for part in parts for model in part.models)
    groups = ([case for part in parts for case in getattr(part.pairing, item.name)] for item in fields(Pairing))
    return Comparison(
        base=base,
        new=new,
        pairing=Pairing(*map(tuple, groups)),
        models=models,
        barriers={},
        speeds=joined([part.speeds for part in parts]),
        threads=parts[0].threads,
        families=_families(models),
        ranks=tuple(rank for part in parts for rank in part.ranks),
        settings=parts[0].settings,
    )


def _compare(base: Run, new: Run, *, across_machines: bool) -> Comparison:
    pairing = match(base, new)
    threads = None if across_machines else fewer_threads(base, new)
    barriers = run_barriers(base, new, across_machines=across_machines, excused=("threads",) if threads else ())
    measured = [pair for pair in pairing.pairs if pair.base.ok and pair.new.ok]
    barred = {pair.model: pair_barriers(pair, excused=excused_of(pair, base, new)) for pair in measured}
    scored = [pair for pair in measured if "scores" not in barriers | barred[pair.model]]
    last = [pair for pair in measured if not pair.measurement]
    sized = [pair for pair in last if "speed" not in barriers | barred[pair.model]]
    speeds = speeds_of(sized, base, new, threads_only=threads is not None)
    changes: dict[str, list[Change]] = {pair.model: _status(pair) for pair in pairing.pairs}
    for pair in measured:
        changes[pair.model] += degradations(pair, base, new)
    for model, change in (*score_changes(scored, base, new), *_speeds(sized, speeds)):
        changes[model].append(change)
    for pair in sized:
        changes[pair.model] += _memory(pair)
        if pair.model in speeds.undecided:
            barred[pair.model] |= {"images_per_s": speeds.undecided[pair.model]}
    for pair in scored:
        changes[pair.model] += _drift(pair, base, new)
    models = tuple(
        ModelChange(
            pair,
            tuple(changes[pair.model]),
            _causes(pair, base, new, speeds) if pair.model in barred else (),
            barred.get(pair.model, {}),
        )
        for pair in pairing.pairs
    )
    return Comparison(
        base=base,
        new=new,
        pairing=pairing,
        models=models,
        barriers=barriers,
        speeds=speeds,
        threads=threads,
        families=_families(models),
        ranks=tuple(_ranks([pair for pair in scored if not pair.measurement], base, new)),
        settings=(*differences(base.versions, new.versions), *differences(*map(_asked, (base, new)))),
    )


def _asked(run: Run) -> dict[str, object]:
    """Return the settings of a run without what followed from them."""
    return {name: value for name, value in run.settings.items() if name != "roster_missing"}


def _causes(pair: Pair, base: Run, new: Run, speeds: Speeds) -> tuple[str, ...]:
    known = causes_of(pair, base, new)
    return (*known, "with one pinned thread the fall is smaller") if pair.model in speeds.by_threads else known


def _status(pair: Pair) -> list[Change]:
    base, new = pair.base, pair.new
    if base.status == new.status:
        return []
    return [Change("status", base.status, new.status, float(base.ok) - float(new.ok))]


def _speeds(pairs: Sequence[Pair], speeds: Speeds) -> Iterator[tuple[str, Change]]:
    """Yield the changes of speed; without interval and p where it is undecided."""
    known = [pair for pair in pairs if pair.model in speeds.falls]
    adjusted = statistics.false_discovery([speeds.falls[pair.model].p for pair in known]).tolist()
    p_of = dict(zip((pair.model for pair in known), adjusted, strict=True))
    for pair in pairs:
        old, now = (result.images_per_s.get("forward") for result in (pair.base, pair.new))
        if pair.model in p_of:
            (fall, low, high, sure, _), p = speeds.falls[pair.model], p_of[pair.model]
            yield pair.model, Change("images_per_s", old, now, fall, low, high, p, p <= statistics.SIGNIFICANT, sure)
        elif pair.model in speeds.undecided and old and now:
            yield pair.model, Change("images_per_s", old, now, 1 - now / old, real=False)


def _memory(pair: Pair) -> list[Change]:
    old, new = pair.base.peak_memory_mb, pair.new.peak_memory_mb
    if not old or new is None:
        return []
    return [Change("memory", old, new, new / old - 1, real=abs(new - old) > memory_noise(old, new, pair.new.device))]


def _drift(pair: Pair, base: Run, new: Run) -> list[Change]:
    drift = drift_of(pair, base, new)
    if drift is None:
        return []
    old, now = ((f"{result.dim} wide" if math.isinf(drift) else None) for result in (pair.base, pair.new))
    noise = max(rounding(pair.base.precision), rounding(pair.new.precision))
    return [Change("drift", old, now, drift, real=drift > noise)]


def _families(models: Sequence[ModelChange]) -> tuple[FamilyChange, ...]:
    families: dict[str, dict[str, list[float]]] = {}
    for model in models:
        for change in filter(_is_compared, () if model.pair.measurement else model.changes):
            families.setdefault(model.family, {}).setdefault(change.what, []).append(change.change)
    rows = []
    for family, changes in families.items():
        speeds = changes.get("images_per_s", [])
        falls = [fall for each in (LABELLED, UNLABELLED) for fall in changes.get(each.first, [])]
        if speeds or falls:
            speed = math.exp(sum(math.log1p(-fall) for fall in speeds) / len(speeds)) if speeds else None
            acc = -sum(falls) / len(falls) if falls else None
            rows.append(FamilyChange(family, max(len(speeds), len(falls)), speed, acc))
    return tuple(sorted(rows))


def _ranks(pairs: Sequence[Pair], base: Run, new: Run) -> Iterator[RankChange]:
    """Yield the changes between the saved rankings of the runs."""
    before, after = ({place.model: place for place in run.ranking} for run in (base, new))
    both = [pair for pair in pairs if pair.base.model in before and pair.new.model in after]
    gone, added = len(before) - len(both), len(after) - len(both)
    for pair in both:
        old, now = before[pair.base.model], after[pair.new.model]
        fell = now.rank > old.rank95[1] + added and now.rank95[0] > old.rank + added
        rose = now.rank < old.rank95[0] - gone and now.rank95[1] < old.rank - gone
        if fell or rose:
            yield RankChange(pair.model, (old.rank, *old.rank95), (now.rank, *now.rank95))
