"""Degradations under equal settings: half precision given up, a smaller batch, fewer threads. The gate judges them."""

from __future__ import annotations

import re
from collections.abc import Collection

from embedcore.compare.pairs import Pair
from embedcore.compare.scores import Change
from embedcore.results.run import Run

_HALF = ("bf16", "fp16")


def degradations(pair: Pair, base: Run, new: Run) -> list[Change]:
    """Return what became worse for two ok results: half precision given up, or a batch reduced."""
    old, now, excused = pair.base, pair.new, excused_of(pair, base, new)
    found = []
    if "precision" in excused and old.precision in _HALF and now.precision == "fp32":
        found.append(Change("degraded", old.precision, now.precision, 1.0))
    if "batch_size" in excused and old.batch_size != now.batch_size:
        found.append(Change("degraded", f"batch of {old.batch_size}", f"batch of {now.batch_size}", 1.0))
    return found


def excused_of(pair: Pair, base: Run, new: Run) -> Collection[str]:
    """Return the fields of two ok results whose difference is an outcome of equal settings.

    ``precision``: chosen by ``auto``, not by unlike processors. ``batch_size``: smaller in the new result, for lack of
    memory or by ``auto``.
    """
    old, now = pair.base, pair.new
    excused = []
    by_auto = base.settings.get("precision") == new.settings.get("precision") == "auto"
    # Some processors multiply bf16 and others do not, also among the runners of one host.
    unlike = now.device == "cpu" and (base.processor, old.processor) != (new.processor, now.processor)
    if old.precision != now.precision and by_auto and not unlike:
        excused.append("precision")
    asked = base.settings.get("batch_size")
    smaller = (old.batch_size or 0) > (now.batch_size or 0)
    decayed = old.batch_size == now.batch_size and now.batch_decayed and not old.batch_decayed
    if (smaller or decayed) and asked is not None and asked == new.settings.get("batch_size"):
        excused.append("batch_size")
    return excused


def fewer_threads(base: Run, new: Run) -> Change | None:
    """Return the change of the number of threads if the new run had fewer on the same processor and equal cores."""
    if base.versions.get("gpu") or new.versions.get("gpu"):
        return None
    before, after = (_threads(run.processor) for run in (base, new))
    if before is None or after is None or before[0] != after[0] or _cores(base) != _cores(new):
        return None
    fewer = int(after[1].split()[0]) < int(before[1].split()[0])
    return Change("degraded", before[1], after[1], 1.0) if fewer else None


def _threads(processor: object) -> tuple[str, str] | None:
    """Return the processor's name and a phrase such as ``2 threads``, as `embedcore.embed.device` joins them."""
    match = re.fullmatch(r"(.+), (\d+ threads?)", str(processor))
    return None if match is None else (match[1], match[2])


def _cores(run: Run) -> object:
    cpu = run.machine.get("cpu")
    return cpu.get("count") if isinstance(cpu, dict) else None
