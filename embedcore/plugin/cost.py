"""What a case is expected to cost, before it is measured."""

from __future__ import annotations

import functools

from embedcore.zoo.registry import input_pixels, known_gmacs, split_tag


@functools.cache
def case_gmacs(model: str) -> float | None:
    """GMACs of one image at the tag's own input size, None for an architecture that is not in the table of sizes.

    The table holds those of the architecture's default tag; another tag's are scaled by the number of pixels.
    """
    known = known_gmacs(model)
    own, default = input_pixels(model), input_pixels(split_tag(model)[0])
    return known if known is None or not own or not default else known * own / default


def expected_cost(model: str) -> float:
    """The cost to sort by: models of unknown cost come last."""
    gmacs = case_gmacs(model)
    return float("inf") if gmacs is None else gmacs
