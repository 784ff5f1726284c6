"""Likely causes of a change of a model, from what else differs; the drift and memory difference that noise explains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from embedcore.compare.pairs import Pair, drift_of, run_barriers
from embedcore.results.result import Result
from embedcore.results.run import Run

# In fp32 4e-6 was the largest drift seen (benchmarks/harness/drift.py). In half precision rounding depends on kernels,
# and so on drivers and batch sizes.
_ROUNDING = {"fp32": 2e-5, "bf16": 0.03, "fp16": 0.004, "int8": 0.03}
_LEAST_MEMORY_MB = 32.0


def rounding(precision: str | None) -> float:
    """Return the largest drift that rounding explains."""
    return _ROUNDING.get(precision or "fp32", _ROUNDING["fp32"])


def memory_noise(old: float, new: float, device: str | None) -> float:
    """Return the largest difference between two figures in MB that noise explains.

    On a card the allocator counts exactly. On the CPU the figure is the growth of a process, which differed by up to
    43 % between equal processes: only a factor of two counts.

    >>> memory_noise(500, 700, "cpu"), memory_noise(500, 700, "cuda:0")
    (500, 0.0)
    """
    return max(_LEAST_MEMORY_MB, min(old, new)) if device == "cpu" else 0.0


def causes_of(pair: Pair, base: Run, new: Run) -> tuple[str, ...]:
    """Return phrases such as ``crop 1.0 → 0.875`` or ``other weights file: …``; none if no difference is known."""
    old, now = pair.base, pair.new
    found = [*([pair.why] if pair.why else []), *_weights_causes(old, now)]
    sides = [{"input_size": result.input_size, **result.transform} for result in (old, now)]
    found += [phrase for name in TRANSFORM for phrase in _changed(name, sides[0].get(name), sides[1].get(name))]
    for name in ("dim", "point", "engine", "precision", "token_mean", "device"):
        found += _changed(name, getattr(old, name), getattr(now, name))
    explained = found or "scores" in run_barriers(base, new, across_machines=False)
    if not explained and (moved := drift_of(pair, base, new) or 0.0) > rounding(now.precision):
        same, what = ("seed", "code or initial weights") if now.random_weights else ("weights", "code")
        found.append(f"same {same} and settings, embeddings moved {moved:.2g}: {what} ({_versions(base, new)})")
    for name in ("batch_size", "channels_last"):  # they decide the speed, and change the rounding
        found += _changed(name, getattr(old, name), getattr(now, name))
    if old.gmacs and now.gmacs and abs(now.gmacs / old.gmacs - 1) > 0.005:
        found.append(f"GMACs {old.gmacs:.3g} → {now.gmacs:.3g}: another architecture or input")
    if old.default_tag and now.default_tag and old.default_tag != now.default_tag and not pair.why:
        found.append(f"the default tag of {now.architecture} is now {now.default_tag}, no longer {old.default_tag}")
    return tuple(found)


def _weights_causes(old: Result, now: Result) -> list[str]:
    before, after = old.weights, now.weights
    if "random" in (before.get("source"), after.get("source")):
        return _changed("weights", before.get("id"), after.get("id"))
    addresses = before.get("address", ""), after.get("address", "")
    moved = f": {addresses[0]} → {addresses[1]}" if all(addresses) and addresses[0] != addresses[1] else ""
    if before.get("id") != after.get("id"):
        same = all(addresses) and not moved
        return ["other weights file" + (f" at the same address ({addresses[0]})" if same else moved)]
    return [f"weights at another address, same content{moved}"] if moved else []


TRANSFORM = ("input_size", "square", "crop_pct", "crop_mode", "interpolation", "mean", "std")
"""Settings that determine a model's input pixels; ``square`` is the edge length to which images are scaled first."""


def _changed(name: str, old: Any, now: Any) -> list[str]:
    """Return a phrase if two values differ; none if one is unknown."""
    return [] if old is None or now is None or old == now else [change_text(name, old, now)]


def change_text(name: str, old: Any, now: Any) -> str:
    """Return a phrase for a setting that differs.

    >>> change_text("crop_pct", 1.0, 0.875), change_text("input_size", (3, 224, 224), (3, 256, 256))
    ('crop 1.0 → 0.875', 'input size 224×224 → 256×256')
    """
    return f"{name.removesuffix('_pct').replace('_', ' ')} {_text(old)} → {_text(now)}"


def changes(old: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yield the phrase of each of these settings that differs."""
    return (change_text(name, old.get(name), now.get(name)) for name in names if old.get(name) != now.get(name))


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        sizes = all(isinstance(part, int) for part in value)
        parts = value[-2:] if sizes else value[:1] if len(set(value)) == 1 else value
        return ("×" if sizes else " ").join(map(str, parts))
    return "none" if value is None else str(value)


def _versions(base: Run, new: Run) -> str:
    names = ("timm", "torch", "cuda", "cudnn", "driver", "python")
    return ", ".join(changes(base.versions, new.versions, names)) or "of the same versions"
