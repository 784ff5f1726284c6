"""Which result of one run belongs to which of another, and what of the two may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedcore.results.result import Result
from embedcore.results.run import Run

# What decides scores and embeddings besides the model; the fingerprint of a dataset holds its split and subset.
_OF_SCORES = ("protocol",)


@dataclass(frozen=True)
class Pair:
    """One model before and after."""

    base: Result
    new: Result
    why: str = ""
    """How the two belong together if their names differ."""

    @property
    def model(self) -> str:
        return self.new.model


@dataclass(frozen=True)
class Pairing:
    """Every model of two runs is in exactly one of these."""

    pairs: tuple[Pair, ...]
    added: tuple[Result, ...]
    missing: tuple[Result, ...]
    """In the base run, asked for in the new one too as far as is known, and not there."""
    unreached: tuple[Result, ...]
    """In the base run; the new one was to measure it and ended before."""
    deselected: tuple[Result, ...]
    """In the base run; the new one was asked for other models."""


def match(base: Run, new: Run) -> Pairing:
    """Pair the results of two runs by name, by timm's table of renamed models, then by the default tag.

    The last is for people who ask for an architecture and get what timm then takes for its best weights.
    """
    olds = {result.model: result for result in (*base.results, *base.excluded)}
    news = {result.model: result for result in (*new.results, *new.excluded)}
    pairs = [Pair(olds[model], result) for model, result in news.items() if model in olds]
    left = {model: result for model, result in olds.items() if model not in news}
    added = {model: result for model, result in news.items() if model not in olds}
    for model in list(left):
        successor = new.renamed.get(model, "")
        if successor in added:
            pairs.append(Pair(left.pop(model), added.pop(successor), f"{model} was renamed to {successor}"))
    for model, result in list(left.items()):
        # Both were what a bare architecture led to, each in its own timm.
        successor = next((m for m, r in added.items() if _is_default(r) and r.architecture == result.architecture), "")
        if successor and _is_default(result):
            why = f"the default tag of {result.architecture} is now {added[successor].tag}: another model"
            pairs.append(Pair(left.pop(model), added.pop(successor), why))
    unreached = {model for model in left if model in new.unreached}
    narrowed = base.selection != new.selection
    rest = [result for model, result in left.items() if model not in unreached]
    return Pairing(
        pairs=tuple(pairs),
        added=tuple(added.values()),
        missing=() if narrowed else tuple(rest),
        unreached=tuple(left[model] for model in left if model in unreached),
        deselected=tuple(rest) if narrowed else (),
    )


def _is_default(result: Result) -> bool:
    return result.default_tag == result.tag and bool(result.tag)


def run_barriers(base: Run, new: Run, *, across_machines: bool) -> dict[str, str]:
    """What of two runs as a whole must not be compared, and why: keys ``scores`` and ``speed``."""
    barriers = {}
    old, now = base.dataset.get("fingerprint"), new.dataset.get("fingerprint")
    if old != now or not old:
        barriers["scores"] = f"another dataset: {_dataset(base.dataset)}, now {_dataset(new.dataset)}"
    for key in _OF_SCORES:
        if base.settings.get(key) != new.settings.get(key):
            barriers.setdefault("scores", f"another {key}: {base.settings.get(key)}, now {new.settings.get(key)}")
    if across_machines:
        barriers["speed"] = "asked for across machines"
    elif base.processor != new.processor:
        barriers["speed"] = f"another machine: {base.processor}, now {new.processor}"
    return barriers


def pair_barriers(pair: Pair) -> dict[str, str]:
    """The same for one model, both of whose results are ok; ``images_per_s`` is the speed without the memory."""
    base, new = pair.base, pair.new
    barriers = {}
    for name in ("precision", "point", "device"):
        old, now = getattr(base, name), getattr(new, name)
        if old != now:
            barriers = dict.fromkeys(("scores", "speed"), f"another {name}: {old}, now {now}")
    if base.random_weights != new.random_weights:
        kinds = ("random", "pretrained") if base.random_weights else ("pretrained", "random")
        barriers = dict.fromkeys(("scores", "speed"), f"{kinds[0]} weights, now {kinds[1]} ones")
    elif base.random_weights and base.weights.get("id") != new.weights.get("id"):
        barriers["scores"] = f"other random weights: {base.weights.get('id')}, now {new.weights.get('id')}"
    if "speed" not in barriers:
        if base.batch_decayed or new.batch_decayed:
            sides = " and ".join(side for side, r in (("base", base), ("new", new)) if r.batch_decayed)
            barriers["speed"] = f"a smaller batch than asked for, for lack of memory ({sides})"
        elif base.batch_size != new.batch_size:
            barriers["speed"] = f"another batch size: {base.batch_size}, now {new.batch_size}"
    if "speed" not in barriers and (base.disturbed or new.disturbed):
        # Neither a fall nor an improvement: a crowd slows anything, by no known amount.
        sides = " and ".join(side for side, r in (("base", base), ("new", new)) if r.disturbed)
        barriers["images_per_s"] = f"the processor was busy with other work meanwhile ({sides})"
    return barriers


def _dataset(block: Mapping[str, Any]) -> str:
    return f"{block.get('name')} ({block.get('classes')} classes, {block.get('queries')} queries)"
