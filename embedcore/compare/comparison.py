"""What changed between two runs: every quantity of every model, with how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcore.compare import statistics
from embedcore.compare.causes import causes_of
from embedcore.compare.limits import TESTED
from embedcore.compare.pairs import Pair, Pairing, match, pair_barriers, run_barriers
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import Verdicts, unpack_classes, unpack_sketch, unpack_verdicts

NOISE = 0.02
"""Standard deviation of the log of a speed ratio between two sessions that run the same, where no `ab --aa` was run."""

SIGNIFICANT = 0.05

# What rounding alone may move embeddings by; in half precision it depends on kernels, so on drivers and batch sizes.
ROUNDING = {"bf16": 0.03, "fp16": 0.004}


@dataclass(frozen=True)
class Change:
    """One quantity of one model, before and after."""

    what: str
    """A score, ``images_per_s``, ``memory``, ``drift`` or ``status``."""
    base: float | str | None
    new: float | str | None
    change: float
    """What limits are about, above 0 where it got worse: a fall of a score in fractions of 1, of speed as 1 - ratio, a
    growth of memory as ratio - 1, the drift itself."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval of `change`."""
    p: float | None = None
    """Adjusted for the number of models; None where no test is made."""
    real: bool = True
    """Whether chance is not enough to explain it."""


@dataclass(frozen=True)
class ModelChange:
    """One model of both runs."""

    pair: Pair
    changes: tuple[Change, ...]
    causes: tuple[str, ...]
    """What else differs, most telling first: the likely reasons."""
    barriers: Mapping[str, str]
    """``scores`` or ``speed`` to why they were not compared."""

    @property
    def model(self) -> str:
        return self.pair.model

    @property
    def family(self) -> str:
        return self.pair.new.family


class FamilyChange(NamedTuple):
    """A family: how many models were compared, geometric mean of speed ratios, mean change of acc (above 0: better)."""

    family: str
    models: int
    speed_ratio: float | None
    acc_change: float | None


class RankChange(NamedTuple):
    """A model whose rank by acc moved out of both 95 % intervals; ranks among the models that both runs have."""

    model: str
    base: tuple[int, int, int]
    """rank, best, worst"""
    new: tuple[int, int, int]


@dataclass(frozen=True)
class Comparison:
    """Everything that two runs say of each other."""

    base: Run
    new: Run
    pairing: Pairing
    models: tuple[ModelChange, ...]
    barriers: Mapping[str, str]
    """Of the runs as a whole."""
    noise: float
    noise_measured: bool
    families: tuple[FamilyChange, ...] = ()
    ranks: tuple[RankChange, ...] = ()
    settings: tuple[str, ...] = field(default=())
    """Settings and versions that differ."""

    @property
    def compared(self) -> int:
        """Models of which at least one measured quantity was compared."""
        return sum(any(change.what != "status" for change in model.changes) for model in self.models)


def compare(base: Run, new: Run, *, across_machines: bool = False) -> Comparison:
    """Compare two runs, model by model. Raises UsageError for a run whose verdicts or sketches are not what they
    should be."""
    pairing = match(base, new)
    barriers = run_barriers(base, new, across_machines=across_machines)
    measured = [pair for pair in pairing.pairs if pair.base.ok and pair.new.ok]
    own = {pair.model: pair_barriers(pair) for pair in measured}
    scored = [pair for pair in measured if not {"scores"} & (barriers | own[pair.model]).keys()]
    timed = [pair for pair in measured if not {"speed"} & (barriers | own[pair.model]).keys()]
    known = [run.noise for run in (base, new) if run.noise is not None]
    noise = max(known, default=NOISE)
    changes: dict[str, list[Change]] = {pair.model: _status(pair) for pair in pairing.pairs}
    classes = _classes(base) if scored else np.zeros(0, dtype=np.uint32)
    verdicts = _Verdicts(base, new, len(classes))
    for model, found in (*_scores(scored, verdicts, classes), *_speeds(timed, noise)):
        changes[model].append(found)
    for pair in timed:
        changes[pair.model] += _memory(pair)
    for pair in scored:
        changes[pair.model] += _drift(pair, base, new)
    models = tuple(
        ModelChange(
            pair,
            tuple(changes[pair.model]),
            causes_of(pair, base, new) if pair.base.ok and pair.new.ok else (),
            own.get(pair.model, {}),
        )
        for pair in pairing.pairs
    )
    return Comparison(
        base=base,
        new=new,
        pairing=pairing,
        models=models,
        barriers=barriers,
        noise=noise,
        noise_measured=bool(known),
        families=_families(models),
        ranks=_ranks(scored, verdicts, classes),
        settings=tuple(_differences(base, new)),
    )


def _status(pair: Pair) -> list[Change]:
    base, new = pair.base, pair.new
    if base.status == new.status:
        return []
    return [Change("status", base.status, new.status, float(base.ok) - float(new.ok))]


class _Verdicts:
    """Verdicts of both runs, unpacked when they are asked for; of base, new and `classes` equally many queries."""

    def __init__(self, base: Run, new: Run, queries: int) -> None:
        self._paths = {id(result): run.path for run in (base, new) for result in run.results}
        self._queries = queries

    def of(self, result: Result) -> Verdicts | None:
        """None where the run has none."""
        if result.verdicts is None:
            return None
        try:
            verdicts = unpack_verdicts(result.verdicts)
            if len(verdicts.hits) != self._queries:
                raise ValueError(f"verdicts on {len(verdicts.hits)} queries, and the dataset has {self._queries}")
        except ValueError as error:
            raise UsageError(f"{self._paths.get(id(result), 'run')}: result of {result.model}: {error}") from error
        return verdicts


def _classes(run: Run) -> NDArray[np.uint32]:
    """The class of each query; where the run does not say, each query is a class of its own."""
    text, queries = run.dataset.get("query_classes"), run.dataset.get("queries")
    try:
        if isinstance(text, str):
            return unpack_classes(text)
    except ValueError as error:
        raise UsageError(f"{run.path}: query_classes: {error}") from error
    return np.arange(queries if isinstance(queries, int) and 0 <= queries < 10**8 else 0, dtype=np.uint32)


# What a query counts for a score, in whole steps of `unit`.
_STEPS: Mapping[str, tuple[Callable[[Verdicts], NDArray[Any]], float]] = {
    "acc": (lambda v: v.first, 1.0),
    "acc5": (lambda v: v.hits, 0.2),
    "hit5": (lambda v: v.hits > 0, 1.0),
}


def _scores(pairs: Sequence[Pair], verdicts: _Verdicts, classes: NDArray[np.uint32]) -> list[tuple[str, Change]]:
    """Changes of the scores that the verdicts tell, tested; and of the other ones, not tested."""
    differences: dict[str, list[NDArray[np.int8]]] = {metric: [] for metric in TESTED}
    tested = []
    found: list[tuple[str, Change]] = []
    for pair in pairs:
        before, after = verdicts.of(pair.base), verdicts.of(pair.new)
        if before is not None and after is not None:
            tested.append(pair)
            for metric, (steps, _) in _STEPS.items():
                differences[metric].append(steps(after).astype(np.int8) - steps(before).astype(np.int8))
    for metric, (_, unit) in _STEPS.items() if tested and len(classes) else ():
        paired = statistics.paired_by_class(differences[metric], classes, unit)
        p = paired.p
        if metric != "acc5":
            signs = np.stack([[np.sum(d < 0), np.sum(d > 0)] for d in differences[metric]], axis=1)
            p = statistics.mcnemar(*signs)
        adjusted = statistics.false_discovery(p)
        for place, pair in enumerate(tested):
            old = pair.base.scores.get(metric)
            new = pair.new.scores.get(metric)
            change = Change(
                metric, old, new, -float(paired.difference[place]), -float(paired.high[place]),
                -float(paired.low[place]), float(adjusted[place]), bool(adjusted[place] <= SIGNIFICANT),
            )  # fmt: skip
            found.append((pair.model, change))
    names = {pair.model for pair in tested}
    for pair in pairs:
        for metric, old in pair.base.scores.items():
            if metric in pair.new.scores and not (metric in TESTED and pair.model in names):
                new = pair.new.scores[metric]
                found.append((pair.model, Change(metric, old, new, old - new, real=False)))
    return found


def _speeds(pairs: Sequence[Pair], noise: float) -> list[tuple[str, Change]]:
    timed = [pair for pair in pairs if pair.base.durations and pair.new.durations]
    ratios = [
        statistics.speed_ratio(
            pair.base.durations, pair.new.durations, noise, (pair.base.batch_size or 1, pair.new.batch_size or 1)
        )
        for pair in timed
    ]
    adjusted = statistics.false_discovery([ratio.p for ratio in ratios])
    return [
        (
            pair.model,
            Change(
                "images_per_s",
                pair.base.images_per_s.get("forward"),
                pair.new.images_per_s.get("forward"),
                1 - ratio.ratio,
                1 - ratio.high,
                1 - ratio.low,
                float(p),
                bool(p <= SIGNIFICANT),
            ),
        )
        for pair, ratio, p in zip(timed, ratios, adjusted, strict=True)
    ]


# On the CPU the figure is a process's growth, which allocators round.
_LEAST_MEMORY_MB = 32.0


def _memory(pair: Pair) -> list[Change]:
    old, new = pair.base.peak_memory_mb, pair.new.peak_memory_mb
    if not old or new is None:
        return []
    return [Change("memory", old, new, new / old - 1, real=abs(new - old) > _LEAST_MEMORY_MB)]


def _drift(pair: Pair, base: Run, new: Run) -> list[Change]:
    if pair.base.sketch is None or pair.new.sketch is None:
        return []
    if pair.base.dim != pair.new.dim:
        return [Change("drift", f"{pair.base.dim} wide", f"{pair.new.dim} wide", math.inf)]
    sketches = []
    for run, result in ((base, pair.base), (new, pair.new)):
        try:
            sketches.append(unpack_sketch(result.sketch or ""))
        except ValueError as error:
            raise UsageError(f"{run.path}: result of {result.model}: {error}") from error
    if sketches[0].shape != sketches[1].shape:
        raise UsageError(f"{new.path}: result of {pair.model}: the sketch is of other images than in {base.path}")
    drift = statistics.embedding_drift(*sketches)
    return [Change("drift", None, None, drift, real=drift > ROUNDING.get(pair.new.precision or "", 0.0))]


def _families(models: Sequence[ModelChange]) -> tuple[FamilyChange, ...]:
    families: dict[str, dict[str, list[float]]] = {}
    for model in models:
        for change in model.changes:
            families.setdefault(model.family, {}).setdefault(change.what, []).append(change.change)
    rows = []
    for family, changes in families.items():
        speeds, falls = changes.get("images_per_s", []), changes.get("acc", [])
        if speeds or falls:
            mean = math.exp(sum(math.log1p(-fall) for fall in speeds) / len(speeds)) if speeds else None
            rows.append(
                FamilyChange(family, max(len(speeds), len(falls)), mean, -sum(falls) / len(falls) if falls else None)
            )
    return tuple(sorted(rows))


def _ranks(pairs: Sequence[Pair], verdicts: _Verdicts, classes: NDArray[np.uint32]) -> tuple[RankChange, ...]:
    if len(pairs) < 2 or not len(classes):
        return ()
    _, which, sizes = np.unique(classes, return_inverse=True, return_counts=True)

    def sums(found: Verdicts) -> NDArray[np.float32]:
        return np.bincount(which.reshape(-1), weights=found.first, minlength=len(sizes)).astype(np.float32)

    kept, before, after = [], [], []
    for pair in pairs:
        old, now = verdicts.of(pair.base), verdicts.of(pair.new)
        if old is not None and now is not None:
            kept.append(pair)
            before.append(sums(old))
            after.append(sums(now))
    if len(kept) < 2:
        return ()
    ranks = [statistics.rank_intervals(np.stack(side), sizes).tolist() for side in (before, after)]
    return tuple(
        RankChange(pair.model, tuple(old), tuple(now))
        for pair, old, now in zip(kept, *ranks, strict=True)
        if (now[0] > old[2] and old[0] < now[1]) or (now[0] < old[1] and old[0] > now[2])
    )


def _differences(base: Run, new: Run) -> list[str]:
    """Settings and versions that differ, a phrase each."""
    lines = []
    for old, now in ((base.versions, new.versions), (base.settings, new.settings)):
        for key in dict.fromkeys([*old, *now]):
            if old.get(key) != now.get(key) and key != "roster_missing":
                lines.append(f"{key} {old.get(key)}, now {now.get(key)}")
    return lines
