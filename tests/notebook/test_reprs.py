"""What a notebook shows of each object is one short line."""

from __future__ import annotations

import numpy as np
import pytest

from embedcore import Bench, CaseSettings, OwnModel, Result, as_dataset, load_backbone, load_dataset, nearest, score

ROWS = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
ARRAYS = [np.full((8, 8, 3), 30 * level, np.uint8) for level in range(4)]
ROLES = ["query", "reference", "query", "reference"]
OK = Result.make("a.x", family="vit", status="ok", scores={"acc": 0.5, "acc5": 0.25}, images_per_s={"forward": 61.23})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (load_dataset(ARRAYS, [*"aabb"]), "Dataset 'images': 4 images of 2 classes, leave-one-out"),
        (load_dataset(ARRAYS, [*"aabb"], roles=ROLES), "Dataset 'images': 2 queries and 2 references of 2 classes"),
        (as_dataset(ARRAYS[:1]), "Dataset 'images': 1 image without classes"),
        (nearest(ROWS, k=2), "Neighbours of 4 queries: the nearest 2 references of each"),
        (
            score(ROWS, [0, 0, 1, 1]),
            "Scores of 4 queries: acc 1.000 (95 % interval 1.000 to 1.000), acc5 0.200",
        ),
        (CaseSettings(), "CaseSettings()"),
        (CaseSettings(device="cpu", rounds=3), "CaseSettings(device='cpu', rounds=3)"),
        (
            OwnModel(name="ours", arch="resnet18", weights="best.pth", folders=("/a", "/b")),
            "OwnModel(name='ours', arch='resnet18', weights='best.pth')",
        ),
        (OK, "Result of a.x: acc 0.500, acc5 0.250, 61.2 images/s"),
        (Result.make("a.x", family="vit", status="oom", reason="no room"), "Result of a.x: oom: no room"),
        (
            load_backbone("test_resnet.r160_in1k", weights="random"),
            "Backbone 'test_resnet.r160_in1k': 0.5 M parameters, 160×160 pixels, random weights",
        ),
    ],
)
def test_one_short_line(value, text):
    assert repr(value) == text


def test_a_bench_and_its_cases(tmp_path):
    bench = Bench(CaseSettings(rounds=3), cache=tmp_path)
    assert repr(bench) == f"Bench(CaseSettings(rounds=3), cache='{tmp_path}', isolation='process')"
    assert repr(bench.case("test_resnet.r160_in1k")) == (
        "Case(rounds=3, model='test_resnet.r160_in1k', family='resnet')"
    )
