"""The origin of a change of embeddings: the first module whose output moved, found in the traces of two sides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from embedcore.compare.causes import TRANSFORM, changes, rounding
from embedcore.embed.trace import Call, Summary, Trace

FLOOR = 5e-7
"""Drift above which a module whose settings differ has moved. The same kernel gives the same result, so unlike a drift
of the whole model this needs no allowance for other batch sizes or threads."""

GROWTH = 4.0
"""Factor by which a module's output must have moved further than its input to be the origin."""


@dataclass(frozen=True)
class Origin:
    """The first difference of two forward passes on the same images."""

    name: str
    """Path of the module on side A, "" for the model itself, ``input`` for the pixels."""
    kinds: tuple[str, str]
    """Its class on both sides, "" for the pixels."""
    differences: tuple[str, ...]
    """Phrases such as ``eps 1e-06 → 1e-05``."""
    drift: float
    """How far its output moved, relative to the output's length; infinite if the shape differs."""
    renamed: str = ""
    """Its path on side B, if that is another one."""

    def text(self) -> str:
        """Return one line.

        >>> Origin("blocks.0.norm1", ("LayerNorm", "LayerNorm"), ("eps 1e-06 → 1e-05",), 4e-5).text()
        'began in blocks.0.norm1 (LayerNorm): eps 1e-06 → 1e-05'
        """
        if self.name == "input":
            return f"began in the input: {self._why('same settings, other pixels')}"
        kind = " → ".join(dict.fromkeys(self.kinds))
        where = f"{self.name} ({kind})" if self.name else f"the model's own code ({kind}), around its modules"
        where += f", on side B {self.renamed}" if self.renamed else ""
        return f"began in {where}: {self._why('same settings, other code')}"

    def _why(self, otherwise: str) -> str:
        changed = ["another class"] if self.kinds[0] != self.kinds[1] else []
        return ", ".join([*changed, *self.differences]) or otherwise

    def to_json(self) -> dict[str, Any]:
        return {
            "module": self.name,
            "module_b": self.renamed or self.name,
            "class": list(self.kinds),
            "differences": list(self.differences),
            "drift": self.drift,
        }


def origin_of(base: Trace, new: Trace) -> Origin | None:
    """Return where two traces of the same images begin to differ beyond rounding; None if they do not.

    The origin is the first call that got the same and returned something else; of a module and those inside, the
    innermost. Calls are matched by name, and where names differ by class and order.
    """
    moved = drift_of(base.pixels, new.pixels)
    if moved > FLOOR:
        return Origin("input", ("", ""), tuple(changes(base.transform, new.transform, TRANSFORM)), moved)
    for old, now in matched(base.calls, new.calls):
        before, after = drift_of(old.inputs, now.inputs), drift_of(old.outputs, now.outputs)
        common = [name for name in old.settings if name in now.settings]
        differences = tuple(changes(old.settings, now.settings, common))
        differences += ("other weights",) if drift_of(old.weights, now.weights) > FLOOR else ()
        floor = FLOOR if differences or old.kind != now.kind else rounding("fp32")
        if after > max(floor, GROWTH * before):
            renamed = "" if old.name == now.name else now.name
            return Origin(old.name, (old.kind, now.kind), differences, after, renamed)
    return None


def drift_of(base: Summary, new: Summary) -> float:
    """Return how far tensors moved, relative to their length; a rearrangement, such as to channels last, is 0."""
    if not base.shapes and not new.shapes:
        return 0.0
    length = max(base.norm, new.norm)
    if base.shapes == new.shapes:
        return math.dist(base.sketch, new.sketch) / length if length else 0.0
    counts = [sum(map(math.prod, summary.shapes)) for summary in (base, new)]
    rearranged = counts[0] == counts[1] and abs(base.norm - new.norm) <= FLOOR * length
    return 0.0 if rearranged else math.inf


def matched(base: Sequence[Call], new: Sequence[Call]) -> Iterator[tuple[Call, Call]]:
    """Yield the calls of both sides that belong together, in order; calls that only one side has are left out."""
    old, now = [c for c in base if not _passes(c)], [c for c in new if not _passes(c)]
    for _, i, i_end, j, j_end in _blocks([c.name for c in old], [c.name for c in now]):
        if i_end - i == j_end - j:
            yield from zip(old[i:i_end], now[j:j_end], strict=True)
        else:
            ours, theirs = old[i:i_end], now[j:j_end]
            for _, k, k_end, m, m_end in _blocks([c.kind for c in ours], [c.kind for c in theirs]):
                if k_end - k == m_end - m:
                    yield from zip(ours[k:k_end], theirs[m:m_end], strict=True)


def _passes(call: Call) -> bool:
    """Return whether a module returned its input, as dropout does: an older or newer timm may not have it."""
    return bool(call.name) and call.inputs == call.outputs


def _blocks(old: Sequence[str], now: Sequence[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, old, now, autojunk=False).get_opcodes()
