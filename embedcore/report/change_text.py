"""Changes of scores, their intervals and p-values as cells of a table."""

from __future__ import annotations

from typing import Any

from embedcore.compare.labelled_retrieval import ScoreChange
from embedcore.report.board.columns import NOTHING


def signed(change: float, digits: int) -> str:
    """Return a change with its sign, zero as positive.

    >>> signed(-0.0123, 3), signed(-0.0, 3), signed(-0.0004, 3)
    ('-0.012', '+0.000', '+0.000')
    """
    return f"{round(change, digits) + 0.0:+.{digits}f}"


def points(change: float) -> str:
    """Return a change of a score, a fraction, in percentage points.

    >>> points(0.0123), points(-0.0001)
    ('+1.2', '+0.0')
    """
    return signed(100 * change, 1)


def interval(low: float, high: float) -> str:
    """Return an interval of a change in percentage points: ``[-1.2, +0.4]``."""
    return f"[{points(low)}, {points(high)}]"


def p_value(p: float) -> str:
    """Return a p-value with three decimals.

    >>> p_value(0.04), p_value(1e-9)
    ('0.040', '<.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "<.001"


def change_cells(change: ScoreChange | None) -> tuple[str, str, str]:
    """Return the cells of a change, its interval and its p-value; "–" for None."""
    if change is None:
        return NOTHING, NOTHING, NOTHING
    return points(change.change), interval(change.low, change.high), p_value(change.p)


def change_values(change: ScoreChange | None) -> dict[str, Any]:
    """Return ``change`` ``change_ci95`` ``p`` of a change for JSON; {} for None."""
    if change is None:
        return {}
    return {"change": change.change, "change_ci95": (change.low, change.high), "p": change.p}
