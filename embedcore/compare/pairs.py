"""Pair the results of two runs; decide what may be compared; read their sketches."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from embedcore.compare.selection import exclusion
from embedcore.compare.statistics import embedding_drift
from embedcore.errors import UsageError
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import unpack_sketch


@dataclass(frozen=True)
class Pair:
    """One model before and after."""

    base: Result
    new: Result
    why: str = ""
    """Why results of different names are paired."""
    dataset: str = ""
    """Name of the dataset, if the runs have several."""
    measurement: str = ""
    """Which earlier measurement of the case this is, if it was measured more than once; "" for the last."""

    @property
    def case(self) -> str:
        """Name of the case, for limits and accepted changes."""
        return f"{self.new.model} on {self.dataset}" if self.dataset else self.new.model

    @property
    def model(self) -> str:
        """Unique name: that of the case, with its measurement."""
        return f"{self.case} ({self.measurement})" if self.measurement else self.case


@dataclass(frozen=True)
class Pairing:
    """The models of two runs, each in exactly one of these groups."""

    pairs: tuple[Pair, ...]
    added: tuple[Result, ...]
    missing: tuple[Result, ...]
    """Only in the base run, and as far as is known the new run selected them."""
    unreached: tuple[Result, ...]
    """Only in the base run; the new run ended before measuring them."""
    deselected: tuple[Result, ...]
    """Only in the base run; the new run's selection excludes them, or its race has stopped them."""


Block = Mapping[str, Any]
"""A dataset, as the saved JSON describes it."""


def dataset_pairs(base: Run, new: Run) -> list[tuple[Block | None, Block | None]]:
    """Pair the datasets of two runs: by content, else by name; if each run has only one, these two.

    None stands for a dataset that the other run does not have.
    """
    if len(base.datasets) < 2 and len(new.datasets) < 2:
        return [(base.dataset, new.dataset)]
    left, added = list(base.datasets or [base.dataset]), list(new.datasets or [new.dataset])
    pairs: list[tuple[Block | None, Block | None]] = []
    for key in ("fingerprint", "name"):
        for old in [*left]:
            now = next((block for block in added if block.get(key) == old.get(key)), None)
            if now is not None:
                left.remove(old)
                added.remove(now)
                pairs.append((old, now))
    return [*pairs, *((old, None) for old in left), *((None, now) for now in added)]


def match(base: Run, new: Run) -> Pairing:
    """Pair results on one dataset by name, else by timm's table of renamed models, else by the default tag.

    The default tag serves users who name an architecture and get the weights that timm currently prefers.
    """
    left, added = (
        {result.model: result for result in (*run.results, *run.excluded) if result.status != "raced-out"}
        for run in (base, new)
    )
    raced_out = {result.model for result in new.excluded if result.status == "raced-out"}
    pairs = [Pair(left.pop(model), added.pop(model)) for model in [*added] if model in left]
    for model in [*left]:
        successor = new.renamed.get(model, "")
        if successor in added:
            pairs.append(Pair(left.pop(model), added.pop(successor), f"{model} was renamed to {successor}"))
    defaults = {result.architecture: model for model, result in added.items() if _is_default(result)}
    for model, result in [*left.items()]:
        if _is_default(result) and result.architecture in defaults:
            now = added.pop(defaults.pop(result.architecture))
            why = f"the default tag of {result.architecture} is now {now.tag}: another model"
            pairs.append(Pair(left.pop(model), now, why))
    unreached = tuple(left.pop(model) for model in [*left] if model in new.unreached)
    excluded = exclusion(new) if left else None
    deselected = tuple(
        left.pop(model) for model, result in [*left.items()] if model in raced_out or (excluded and excluded(result))
    )
    return Pairing(
        pairs=(*pairs, *(repeat for pair in pairs for repeat in _repeats(pair, base, new))),
        added=tuple(added.values()),
        missing=tuple(left.values()),
        unreached=unreached,
        deselected=deselected,
    )


def _repeats(pair: Pair, base: Run, new: Run) -> Iterator[Pair]:
    """Yield the earlier measurements of the pair's results; their speed and memory are those of the last ones."""
    for run, result, side in ((base, pair.base, "base "), (new, pair.new, "")):
        earlier = [each for each in run.repeats if each.model == result.model]
        for number, each in enumerate(earlier, start=1):
            sides = (each, pair.new) if side else (pair.base, each)
            old, now = (msgspec.structs.replace(s, durations=(), processes=(), peak_memory_mb=None) for s in sides)
            yield replace(pair, base=old, new=now, measurement=f"earlier {side}measurement {number}")


def _is_default(result: Result) -> bool:
    return result.default_tag == result.tag and bool(result.tag)


def machines_named(runs: Iterable[Run]) -> list[Run]:
    """Return the runs; if one was merged from unlike machines, with the machine in each result of all of them."""
    listed = list(runs)
    return [run.of_machines() for run in listed] if any(run.unlike for run in listed) else listed


def run_barriers(base: Run, new: Run, *, across_machines: bool, excused: Collection[str] = ()) -> dict[str, str]:
    """Return the quantities that must not be compared between two runs (``scores``, ``speed``), with the reason.

    `excused`: ``threads`` if their number must not count, see `embedcore.compare.degraded`.
    """
    barriers = {}
    old, now = base.dataset.get("fingerprint"), new.dataset.get("fingerprint")
    protocols = base.settings.get("protocol"), new.settings.get("protocol")
    if old != now or not old:  # the fingerprint includes split and subset
        barriers["scores"] = f"another dataset: {_dataset(base.dataset)}, now {_dataset(new.dataset)}"
    elif protocols[0] != protocols[1]:
        barriers["scores"] = f"another protocol: {protocols[0]}, now {protocols[1]}"
    if across_machines:
        barriers["speed"] = "--across-machines excludes it"
    elif base.processor != new.processor and "threads" not in excused and not (base.unlike or new.unlike):
        barriers["speed"] = f"another machine: {base.processor}, now {new.processor}"
    return barriers


def pair_barriers(pair: Pair, *, excused: Collection[str] = ()) -> dict[str, str]:
    """Return what must not be compared between two ok results of one model, as `run_barriers` does.

    `excused`: ``precision`` or ``batch_size`` if a difference is an outcome of equal settings.
    """
    base, new = pair.base, pair.new
    for name in ("device", "point", "engine", "precision"):
        old, now = getattr(base, name), getattr(new, name)
        if old != now and name not in excused:
            return dict.fromkeys(("scores", "speed"), f"another {name}: {old}, now {now}")
    if base.random_weights != new.random_weights:
        kinds = ("random", "pretrained") if base.random_weights else ("pretrained", "random")
        return dict.fromkeys(("scores", "speed"), f"{kinds[0]} weights, now {kinds[1]} ones")
    barriers = {}
    if base.random_weights and base.weights.get("id") != new.weights.get("id"):
        barriers["scores"] = f"other random weights: {base.weights.get('id')}, now {new.weights.get('id')}"
    if base.processor != new.processor:  # of a merged run
        barriers["speed"] = f"another machine: {base.processor}, now {new.processor}"
    same_batch = base.batch_size == new.batch_size and base.batch_decayed == new.batch_decayed
    if not same_batch and "batch_size" not in excused:
        decayed = " and ".join(side for side, result in (("base", base), ("new", new)) if result.batch_decayed)
        if decayed:
            barriers["speed"] = f"a smaller batch than asked for, out of memory ({decayed})"
        else:
            barriers["speed"] = f"another batch size: {base.batch_size}, now {new.batch_size}"
    return barriers


def _dataset(block: Mapping[str, Any]) -> str:
    return f"{block.get('name')} ({block.get('classes')} classes, {block.get('queries')} queries)"


def drift_of(pair: Pair, base: Run, new: Run) -> float | None:
    """Return the drift (see `embedding_drift`): None without sketches, infinite if the width changed.

    Raises UsageError for a damaged sketch, and for sketches of different images.
    """
    if pair.base.sketch is None or pair.new.sketch is None:
        return None
    if pair.base.dim != pair.new.dim:
        return math.inf
    sketches = []
    for run, result in ((base, pair.base), (new, pair.new)):
        try:
            sketches.append(unpack_sketch(result.sketch or ""))
        except ValueError as error:
            raise UsageError(f"{run.path}: result of {result.model}: {error}") from error
    if sketches[0].shape != sketches[1].shape:
        raise UsageError(
            f"{new.path}: result of {pair.model}: its sketch and that in {base.path} are of different images"
        )
    return embedding_drift(*sketches)
