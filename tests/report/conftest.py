"""Made-up results and leaderboards for the tests of report/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import browsing
import pytest

from embedcore.results.leaderboard import Leaderboard, build
from embedcore.results.result import Result

DATASET = {
    "name": "emoji",
    "fingerprint": "abc",
    "classes": 256,
    "queries": 544,
    "references": 543,
    "acc5_ceiling": 0.6897,
    "chance_acc": 0.00391,
    "duplicates": 3,
    "lone_queries": 7,
}

# The shapes of the tags that timm 1.0.31 has; the first is as long as its longest.
TAGS = (
    "vit_mediumd_patch16_reg4_gap_384.sbb2_e200_in12k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k",
    "resnet18.a1_in1k",
    "convnext_xxlarge.clip_laion2b_soup_ft_in12k",
    "tf_efficientnet_lite0.in1k",
)


def _result(model: str = TAGS[1], acc: float = 0.5, acc5: float = 0.3, **other: Any) -> Result:
    architecture, _, tag = model.partition(".")
    fields: dict[str, Any] = {
        "model": model,
        "architecture": architecture,
        "tag": tag,
        "family": "vit",
        "status": "ok",
        "pretraining": "in21k",
        "licence": "apache-2.0",
        "params_m": 85.8,
        "gmacs": 16.9,
        "input_size": (3, 224, 224),
        "dim": 768,
        "token_mean": False,
        "precision": "fp32",
        "batch_size": 64,
        "device": "cpu",
        "weights": {"source": "hub", "id": "sha256:0123456789abcdef"},
        "scores": {"acc": acc, "acc5": acc5, "map_at_r": 0.234},
        "ci95": {"acc": (acc - 0.02, acc + 0.04), "acc5": (acc5 - 0.01, acc5 + 0.01)},
        "images_per_s": {"forward": 101.5, "end_to_end": 97.0},
        "verdicts": "eJwDAAAAAAE=",
        "durations": (0.61, 0.62),
    }
    return Result.make(**(fields | other))


@pytest.fixture
def result_of() -> Callable[..., Result]:
    """A function from a model, its acc, acc5 and other fields to an ok result with every field set."""
    return _result


@pytest.fixture
def board_of() -> Callable[..., Leaderboard]:
    """A function from results, and further facts of the made-up dataset, to their leaderboard."""

    def board(results: Sequence[Result], **facts: Any) -> Leaderboard:
        dataset = DATASET | facts
        return build(results, dataset=dataset, titles={"vit": "ViT", "resnet": "ResNet"})

    return board


@pytest.fixture
def many() -> list[Result]:
    """1,800 results in 36 families and 22 that could not be measured."""
    results = [
        _result(
            f"m{i}_{TAGS[i % len(TAGS)]}"[:56], acc=(i * 7919 % 1800) / 1800, family="vit" if i < 300 else f"f{i % 35}"
        )
        for i in range(1800)
    ]
    return results + [
        Result.make(f"x{i}.y", family="vit", status="no-weights", reason="hub unreachable") for i in range(22)
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser of a module's tests."""
    with browsing.browser() as launched:
        yield launched
