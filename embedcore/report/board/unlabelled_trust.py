"""How far an order without labels may be trusted: its agreement with the order by labels on sets that have labels."""

from __future__ import annotations

from typing import NamedTuple


class Agreement(NamedTuple):
    """Agreement of the two orders of the same embeddings on one image set."""

    images: str
    embeddings: int
    """Number of embeddings that were ordered: those of `networks` at several input sizes and depths."""
    networks: int
    tau: float
    """Kendall's tau-b of view_recall and the score with labels."""


MEASURED = (
    Agreement("drawings", 36, 4, 0.61),
    Agreement("photos", 36, 4, 0.57),
    Agreement("digits", 36, 4, 0.43),
    Agreement("emoji", 36, 4, 0.39),
    Agreement("icons", 36, 4, 0.02),
)
"""What `benchmarks/harness/unlabelled_trust.py` printed, highest first."""

FAILED = 0.5
"""Below this tau, the two orders differ in more than a quarter of the pairs of models."""


def trust_lines() -> list[str]:
    """Return the sentences that stand beside every order without labels."""
    listed = ", ".join(f"{each.tau:.2f} ({each.images}, {each.embeddings} embeddings)" for each in MEASURED)
    few = f"{max(each.networks for each in MEASURED)} networks at several sizes and depths"
    lines = [f"Kendall's tau of this order and one by labels on labelled sets (1: same order), {few}: {listed}"]
    failed = [each.images for each in MEASURED if each.tau < FAILED]
    return [*lines, *([f"it failed on {', '.join(failed)}: label some images if you can"] if failed else [])]
