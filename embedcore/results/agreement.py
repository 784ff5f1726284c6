"""Agreement of two metrics on the order of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def kendall_tau(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return Kendall's tau-b of acc and acc5 over n models: 1 is the same order, -1 the reverse.

    None for fewer than two models, and if all are equal in one metric. Equals scipy's, whose import would take longer
    than the [n, n] comparisons.
    """
    import numpy as np

    acc, acc5 = (np.array([row[metric] for row in rows]) for metric in ("acc", "acc5"))
    by_acc, by_acc5 = np.sign(acc[:, None] - acc), np.sign(acc5[:, None] - acc5)
    pairs = np.count_nonzero(by_acc) * np.count_nonzero(by_acc5)
    return float((by_acc * by_acc5).sum() / np.sqrt(pairs)) if pairs else None
