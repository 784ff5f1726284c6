from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedcore.compare.causes import causes_of
from embedcore.compare.pairs import Pair
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import pack_sketch

SKETCH = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
WEIGHTS = {"source": "hub", "id": "sha256:aa", "address": "timm/net.a"}
TRANSFORM = {"crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}


def result(moved=0.0, **fields):
    usual = {
        "family": "x",
        "status": "ok",
        "scores": {"acc": 0.5, "acc5": 0.4},
        "weights": WEIGHTS,
        "transform": TRANSFORM,
        "input_size": (3, 224, 224),
        "dim": 64,
        "precision": "fp32",
        "default_tag": "a",
        "sketch": pack_sketch((1 + moved) * SKETCH),
    }
    return Result.make("net.a", **(usual | fields))


def run(timm="1.0.9", fingerprint="emoji", protocol="native"):
    return Run(
        Path("run.json"),
        (),
        (),
        {"protocol": protocol},
        {"fingerprint": fingerprint},
        {"embedcore": {"timm": timm}},
        None,
    )


def causes(old=None, now=None, base=None, new=None, why=""):
    pair = Pair(old or result(), now or result(), why)
    return list(causes_of(pair, base or run(), new or run("1.0.15")))


@pytest.mark.parametrize(
    ("changed", "phrases"),
    [
        ({}, []),
        ({"moved": 1e-5}, []),
        ({"transform": TRANSFORM | {"crop_pct": 0.875}, "moved": 0.1}, ["crop 1.0 → 0.875"]),
        ({"transform": TRANSFORM | {"mean": (0.5, 0.4, 0.4)}}, ["mean 0.5 → 0.5 0.4 0.4"]),
        ({"transform": TRANSFORM | {"interpolation": "bilinear"}}, ["interpolation bicubic → bilinear"]),
        ({"transform": {}, "weights": {"source": "hub", "id": "sha256:aa"}, "default_tag": None}, []),
        ({"input_size": (3, 256, 256)}, ["input size 224×224 → 256×256"]),
        ({"weights": WEIGHTS | {"id": "sha256:bb"}}, ["other weights file at the same address (timm/net.a)"]),
        (
            {"weights": WEIGHTS | {"id": "sha256:bb", "address": "timm/new"}},
            ["other weights file: timm/net.a → timm/new"],
        ),
        ({"weights": {"source": "folder", "id": "sha256:bb"}}, ["other weights file"]),
        (
            {"weights": WEIGHTS | {"address": "timm/new"}},
            ["weights at another address, same content: timm/net.a → timm/new"],
        ),
        ({"weights": {"source": "random", "id": "seed:0"}, "moved": 1.0}, ["weights sha256:aa → seed:0"]),
        ({"dim": 128}, ["dim 64 → 128"]),
        ({"default_tag": "b"}, ["the default tag of net is now b, no longer a"]),
        (
            {"moved": 0.03, "batch_size": 8},
            ["same weights and settings, embeddings moved 0.03: code (timm 1.0.9 → 1.0.15)", "batch size 4 → 8"],
        ),
    ],
)
def test_phrases(changed, phrases):
    assert causes(result(batch_size=4), result(**({"batch_size": 4} | changed))) == phrases


def test_seeded_weights_may_be_others_in_another_timm():
    seeded = {"weights": {"source": "random", "id": "seed:0"}}
    (phrase,) = causes(result(**seeded), result(moved=0.5, **seeded))
    assert phrase == "same seed and settings, embeddings moved 0.5: code or initial weights (timm 1.0.9 → 1.0.15)"


def test_half_precision_rounds_more():
    half = {"precision": "bf16"}
    assert causes(result(**half), result(moved=0.02, **half)) == []
    assert len(causes(result(**half), result(moved=0.04, **half))) == 1


@pytest.mark.parametrize("other", [{"fingerprint": "mine"}, {"protocol": "square224"}])
def test_drift_on_other_images_is_not_attributed_to_the_code(other):
    assert causes(now=result(moved=0.5), new=run("1.0.15", **other)) == []


def test_another_default_tag_is_named_once_and_first():
    found = causes(
        now=result(default_tag="b", weights=WEIGHTS | {"id": "sha256:bb"}),
        why="the default tag of net is now b: another model",
    )
    assert found == [
        "the default tag of net is now b: another model",
        "other weights file at the same address (timm/net.a)",
    ]
