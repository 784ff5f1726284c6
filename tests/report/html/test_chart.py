"""Parts of charts. Their colours are distinguishable, also with colour blindness."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from embedcore.report.html.chart import COLOURS, extent

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "all": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray:
    levels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson's perceptual space."""
    lms = np.cbrt(
        np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]) @ rgb.clip(0, 1)
    )
    return np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]) @ lms


def luminance(colour: str) -> float:
    return float(linear(colour) @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_distinguishable_with_colour_blindness(sight: str) -> None:
    seen = {colour: oklab(SIGHT[sight] @ linear(colour)) for colour in COLOURS}
    distances = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(COLOURS, 2)}
    assert min(distances.values()) > 0.06, min(distances, key=distances.__getitem__)


@pytest.mark.parametrize("background", ["#ffffff", "#1b1f24"])
def test_colours_stand_out_in_light_and_dark(background: str) -> None:
    for colour in COLOURS:
        low, high = sorted((luminance(colour), luminance(background)))
        assert (high + 0.05) / (low + 0.05) >= 2, colour


def test_the_extent_of_scores_is_that_of_their_intervals() -> None:
    rows = [{"acc": 0.9, "acc_low": 0.85, "acc_high": 0.95}, {"acc": 0.7, "acc5": 0.2}, {"acc": 0.8}]
    assert [extent(rows, metric) for metric in ("acc", "acc5")] == [(0.7, 0.95), (0.2, 0.2)]
