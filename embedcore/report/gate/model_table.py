"""A terminal table with a model, or another long name, on each row and its notes below."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from embedcore.plain import one_line, wrapped
from embedcore.report.board.columns import cut

_SHORTEST_NAME = 20


class TableRow(NamedTuple):
    model: str
    """Empty for a further row of the same model."""
    cells: Sequence[str]
    notes: Sequence[str] = ()


def model_table(
    headings: Sequence[str],
    rows: Iterable[TableRow],
    width: int,
    *,
    text: Collection[int] = (),
    first: str = "model",
) -> str:
    """Return a table of at most `width` columns, if that leaves 20 for the model. A longer name has its own line.

    `headings`: of the cells; `text`: the cells that are aligned left; `first`: heading of the names.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(headings, *(row.cells for row in rows), strict=True)]
    room = max(_SHORTEST_NAME, width - sum(widths) - 2 * len(widths))

    def line(name: str, cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(size) if place in text else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([name.ljust(room), *aligned]).rstrip()

    lines = [line(first, headings)]
    for model, cells, notes in rows:
        if len(model) > room:
            lines.append(cut(model, width))
            model = ""
        lines.append(line(model, cells))
        lines += [wrapped(f"  {one_line(note)}", width) for note in notes]
    return "\n".join(lines)
