"""Made-up results for the tests of results/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from embedcore.results.result import Result


def _result(
    model: str = "vit_base_patch16_224.augreg_in21k", acc: float = 0.5, acc5: float = 0.3, **other: Any
) -> Result:
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
        "point": "pre_logits",
        "token_mean": False,
        "precision": "fp32",
        "batch_size": 64,
        "batch_decayed": False,
        "device": "cpu",
        "weights": {"source": "hub", "id": "sha256:0123456789abcdef"},
        "scores": {"acc": acc, "acc5": acc5, "map_at_r": 0.2},
        "ci95": {"acc": (acc - 0.03, acc + 0.03)},
        "images_per_s": {"forward": 101.5, "end_to_end": 97.0},
        "peak_memory_mb": 812.5,
        "verdicts": "eJwDAAAAAAE=",
        "sketch": "AAAA",
        "durations": (0.61, 0.62),
        "crowded": 0.002,
        "download_s": 30.5,
        "measured_s": 12.5,
    }
    return Result.make(**(fields | other))


@pytest.fixture
def result_of() -> Callable[..., Result]:
    """A function from a model, its acc, acc5 and other fields to an ok result with every field set."""
    return _result
