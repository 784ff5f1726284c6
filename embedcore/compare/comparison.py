"""What changed between two runs: every quantity of every model, with how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embedcore.compare import statistics
from embedcore.compare.causes import causes_of, rounding
from embedcore.compare.limits import TESTED
from embedcore.compare.pairs import Pair, Pairing, match, pair_barriers, run_barriers
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import Verdicts, unpack_classes, unpack_sketch, unpack_verdicts

NOISE = 0.02
"""Standard deviation of the log of a speed ratio between two sessions that run the same, where no `ab --aa` was run."""

SIGNIFICANT = 0.05


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
    """``scores``, ``speed`` (and memory) or ``images_per_s`` to why they were not compared."""

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
    """A model whose rank by acc moved out of both 95 % intervals, by more than added or missing models account for."""

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
    """Standard deviation of the log of a speed ratio between two sessions that run the same."""
    noise_source: str
    """``assumed``, ``ab --aa`` or ``models``: from how much these models differ among one another."""
    families: tuple[FamilyChange, ...] = ()
    ranks: tuple[RankChange, ...] = ()
    settings: tuple[str, ...] = field(default=())
    """Settings and versions that differ."""

    @property
    def compared(self) -> int:
        """Models of which at least one measured quantity was compared."""
        return sum(any(change.what != "status" for change in model.changes) for model in self.models)


def compare(base: Run, new: Run, *, across_machines: bool = False) -> Comparison:
    """Compare two runs, model by model; of a run on several datasets what was measured on the first.

    Raises UsageError for a run whose verdicts or sketches are not what they should be.
    """
    passed_over = [line for run in (base, new) for line in _other_datasets(run)]
    base, new = base.on_first_dataset(), new.on_first_dataset()
    pairing = match(base, new)
    barriers = run_barriers(base, new, across_machines=across_machines)
    measured = [pair for pair in pairing.pairs if pair.base.ok and pair.new.ok]
    own = {pair.model: pair_barriers(pair) for pair in measured}
    scored = [pair for pair in measured if not {"scores"} & (barriers | own[pair.model]).keys()]
    timed = [pair for pair in measured if not {"speed"} & (barriers | own[pair.model]).keys()]
    alone = [pair for pair in timed if "images_per_s" not in own[pair.model]]
    rated = [pair for pair in alone if pair.base.durations and pair.new.durations]
    noise, noise_source = _noise(base, new, rated)
    changes: dict[str, list[Change]] = {pair.model: _status(pair) for pair in pairing.pairs}
    tested = _tested(scored, base, new)
    for model, found in (*_scores(scored, tested), *_speeds(rated, noise)):
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
        noise_source=noise_source,
        families=_families(models),
        ranks=_ranks(scored, base, new),
        settings=(*_differences(base, new), *passed_over),
    )


def _status(pair: Pair) -> list[Change]:
    base, new = pair.base, pair.new
    if base.status == new.status:
        return []
    return [Change("status", base.status, new.status, float(base.ok) - float(new.ok))]


class _Tested(NamedTuple):
    """What the verdicts say of the models that have them in both runs."""

    models: list[str]
    paired: Mapping[str, statistics.Paired]
    """Of each tested score."""


_BLOCK = 64  # models whose verdicts are unpacked at once


def _tested(pairs: Sequence[Pair], base: Run, new: Run) -> _Tested | None:
    """None where there is nothing to test."""
    # Those that changed first, so that of most other blocks one side is unpacked only.
    pairs = sorted((pair for pair in pairs if pair.base.verdicts and pair.new.verdicts), key=_same_verdicts)
    classes = _classes(base) if pairs else np.zeros(0, dtype=np.uint32)
    if not len(classes):
        return None
    _, which, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    of_class = csr_array((np.ones(len(which), np.int32), (which.reshape(-1), np.arange(len(which)))))

    def side(run: Run, results: Sequence[Result]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Hits and firsts [n_queries, models]."""
        verdicts = [_verdicts(run, result, len(classes)) for result in results]
        hits, first = np.stack([v.hits for v in verdicts], axis=1), np.stack([v.first for v in verdicts], axis=1)
        return hits.view(np.int8), first.view(np.int8)

    def by_class(steps: NDArray[np.int8]) -> NDArray[np.int32]:
        """Sums [models, C]."""
        return np.asarray((of_class @ steps).T)

    parts: dict[str, list[statistics.Paired]] = {metric: [] for metric in TESTED}
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        old_hits, old_first = side(base, [pair.base for pair in block])
        unchanged = all(map(_same_verdicts, block))
        new_hits, new_first = (old_hits, old_first) if unchanged else side(new, [pair.new for pair in block])
        right = new_first - old_first
        steps = {
            "acc": (right, by_class(right), 1.0),
            "acc5": (None, by_class(new_hits - old_hits), 0.2),
            "hit5": ((any_hit := (new_hits > 0).view(np.int8) - (old_hits > 0).view(np.int8)), by_class(any_hit), 1.0),
        }
        for metric, (signs, difference, unit) in steps.items():
            paired = statistics.paired_by_class(difference * np.float32(unit), sizes)
            if signs is not None:
                p = statistics.mcnemar(np.sum(signs < 0, axis=0), np.sum(signs > 0, axis=0))
                paired = paired._replace(p=p)
            parts[metric].append(paired)
    joined = {
        metric: statistics.Paired(*map(np.concatenate, zip(*blocks, strict=True))) for metric, blocks in parts.items()
    }
    return _Tested([pair.model for pair in pairs], joined)


def _same_verdicts(pair: Pair) -> bool:
    return pair.base.verdicts == pair.new.verdicts


def _verdicts(run: Run, result: Result, queries: int) -> Verdicts:
    try:
        verdicts = unpack_verdicts(result.verdicts or "")
        if len(verdicts.hits) != queries:
            raise ValueError(f"verdicts on {len(verdicts.hits)} queries, and the dataset has {queries}")
    except ValueError as error:
        raise UsageError(f"{run.path}: result of {result.model}: {error}") from error
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


def _scores(pairs: Sequence[Pair], tested: _Tested | None) -> list[tuple[str, Change]]:
    """Changes of the scores that the verdicts tell, tested; and of the other ones, not tested."""
    found: list[tuple[str, Change]] = []
    by_model = {pair.model: pair for pair in pairs}
    names = tested.models if tested is not None else []
    for metric, paired in tested.paired.items() if tested is not None else ():
        adjusted = statistics.false_discovery(paired.p)
        for place, model in enumerate(names):
            old, new = (side.scores.get(metric) for side in (by_model[model].base, by_model[model].new))
            low, high = -float(paired.high[place]), -float(paired.low[place])
            p = float(adjusted[place])
            change = Change(metric, old, new, -float(paired.difference[place]), low, high, p, p <= SIGNIFICANT)
            found.append((model, change))
    known = set(names)
    for pair in pairs:
        for metric, old in pair.base.scores.items():
            if metric in pair.new.scores and not (metric in TESTED and pair.model in known):
                new = pair.new.scores[metric]
                found.append((pair.model, Change(metric, old, new, old - new, real=False)))
    return found


def _noise(base: Run, new: Run, pairs: Sequence[Pair]) -> tuple[float, str]:
    """The largest that is known, with its source: two sessions differ by no less than two processes do."""
    known = [(run.noise, "ab --aa") for run in (base, new) if run.noise is not None]
    seen = statistics.scatter([statistics.log_speed_ratio(pair.base.durations, pair.new.durations) for pair in pairs])
    return max([(NOISE, "assumed"), *known, (seen, "models")])


def _speeds(pairs: Sequence[Pair], noise: float) -> list[tuple[str, Change]]:
    ratios = [
        statistics.speed_ratio(
            pair.base.durations, pair.new.durations, noise, (pair.base.batch_size or 1, pair.new.batch_size or 1)
        )
        for pair in pairs
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
        for pair, ratio, p in zip(pairs, ratios, adjusted, strict=True)
    ]


# On the CPU the figure is a process's growth: between processes that run the same it was seen to differ by 43 %. Only a
# doubling is taken for real there; on a card the allocator counts.
LEAST_MEMORY_MB = 32.0
_CPU_MEMORY_NOISE = 1.0


def _memory(pair: Pair) -> list[Change]:
    old, new = pair.base.peak_memory_mb, pair.new.peak_memory_mb
    if not old or new is None:
        return []
    least = max(LEAST_MEMORY_MB, _CPU_MEMORY_NOISE * old) if pair.new.device == "cpu" else 0.0
    return [Change("memory", old, new, new / old - 1, real=abs(new - old) > least)]


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
    return [Change("drift", None, None, drift, real=drift > rounding(pair.new.precision))]


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


def _ranks(pairs: Sequence[Pair], base: Run, new: Run) -> tuple[RankChange, ...]:
    """From the rankings that the runs were saved with."""
    before, after = ({standing.model: standing for standing in run.ranking} for run in (base, new))
    both = [pair for pair in pairs if pair.base.model in before and pair.new.model in after]
    gone, added = len(before) - len(both), len(after) - len(both)
    changes = [
        RankChange(pair.model, (old.rank, *old.rank95), (now.rank, *now.rank95))
        for pair in both
        for old, now in [(before[pair.base.model], after[pair.new.model])]
    ]
    return tuple(
        change
        for change in changes
        for (rank, best, worst), (now, now_best, now_worst) in [(change.base, change.new)]
        if (now > worst + added and now_best > rank + added) or (now < best - gone and now_worst < rank - gone)
    )


def _other_datasets(run: Run) -> list[str]:
    """A line that names the datasets that are not compared."""
    others = [str(block.get("name")) for block in run.datasets[1:]]
    return [f"{run.path}: only {run.dataset.get('name')} is compared, not {', '.join(others)}"] if others else []


def _differences(base: Run, new: Run) -> list[str]:
    """Settings and versions that differ, a phrase each."""
    lines = []
    for old, now in ((base.versions, new.versions), (base.settings, new.settings)):
        for key in dict.fromkeys([*old, *now]):
            if old.get(key) != now.get(key) and key != "roster_missing":
                lines.append(f"{key} {old.get(key)}, now {now.get(key)}")
    return lines
