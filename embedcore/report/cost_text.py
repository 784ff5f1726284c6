"""The table of ``embedcore plan``: what a run would cost on each machine on which something was measured."""

from __future__ import annotations

from collections.abc import Sequence

from embedcore.durations import show_duration
from embedcore.plain import counted, wrapped
from embedcore.report.board.columns import NOTHING, figure
from embedcore.report.gate.model_table import TableRow, model_table
from embedcore.results.costs import MachineCost

_UNKNOWN = (
    "hours by machine: not known, since nothing was measured with this cache folder; --speeds RUN takes the speeds of "
    "saved runs"
)
_MEANINGS = (
    "hours: on one such machine, without downloads and decoding; range: about three in four contain the actual time. "
    "cases: measured models behind it. outside: models with fewer or more GMACs than these, or unknown ones, whose "
    "time is extrapolated. workers: such machines that end within {} at the upper end of the range; {} if one model "
    "alone takes longer."
)


def as_text(found: Sequence[MachineCost], models: int, images: int, within: float, width: int) -> str:
    """Return the table, or a line if nothing is known, in lines of `width`.

    `models` and `images`: numbers of those that would be measured; `within`: seconds in which the workers should end.
    """
    if not found:
        return wrapped(_UNKNOWN, width)
    rows = [TableRow(cost.setup.machine, _cells(cost)) for cost in found]
    headings = ("engine", "hours", "range", "cases", "outside", "workers")
    table = model_table(headings, rows, width, text=(0,), first="machine")
    title = f"hours by machine, for {counted(models, 'model')} on {counted(images, 'image')}:"
    return "\n".join([wrapped(title, width), table, wrapped(_MEANINGS.format(show_duration(within), NOTHING), width)])


def _cells(cost: MachineCost) -> Sequence[str]:
    hours, low, high = (figure(seconds / 3600) for seconds in (cost.seconds, *cost.range))
    counts = str(cost.measured), str(cost.outside), NOTHING if cost.workers is None else str(cost.workers)
    return f"{cost.setup.engine} {cost.setup.precision}", hours, f"{low}–{high}", *counts
