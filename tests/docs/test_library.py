"""The examples of docs/library.md run."""

from __future__ import annotations

import json
import re

import numpy as np
from documents import page, run_example, with_fewer_classes
from PIL import Image

from embedcore.results.result import Result
from embedcore.results.saved import embedcore_block

BENCHMARK, FIRST, SECOND = re.findall(r"```python\n(.*?)```", page("library.md"), flags=re.DOTALL)


def test_the_example_of_a_benchmark_runs(tmp_path):
    example = with_fewer_classes(BENCHMARK)
    printed = run_example(f"{example}\nprint(repr(run), len(leaderboard(run)), len(rank(run)))", tmp_path)
    assert "2 models measured" in printed and printed.split()[-2:] == ["2", "2"]
    assert (tmp_path / "speed.html").stat().st_size > 1000


def test_the_first_example_runs(tmp_path):
    printed = run_example(FIRST, tmp_path)
    acc, low, high = map(float, re.findall(r"acc ([\d.]+) .* ([\d.]+) to ([\d.]+)\)", printed)[0])
    assert 0.1 < low <= acc <= high < 1  # real weights on few classes: far above the chance of 1 in 32


def test_the_example_of_inputs_and_outputs_runs(tmp_path):
    rng = np.random.default_rng(0)
    for label, colour in {"cat": (220, 30, 30), "dog": (30, 30, 220)}.items():
        for number in range(3):
            path = tmp_path / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(rng.normal(colour, 30, (60, 80, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    result = Result.make("a.x", family="vit", status="ok", scores={"acc": 0.5, "acc5": 0.25})
    saved = {
        "machine_info": {},
        "benchmarks": [{"extra_info": result.extra_info()}],
        "embedcore": embedcore_block(settings={}, datasets=[], excluded=[]),
    }
    (tmp_path / "run.json").write_text(json.dumps(saved))
    lines = run_example(SECOND, tmp_path).splitlines()
    assert lines[:4] == [
        "Dataset 'photos': 6 images of 2 classes, leave-one-out",
        "('photos/cat/0.png', 'photos/cat/1.png', 'photos/dog/0.png') (3, 1280)",
        "torch.Size([1, 1280])",
        "torch.Size([3, 224, 224])",
    ]
    assert "cat/0.png is like cat/" in "\n".join(lines)
    assert re.search(r"acc +1\.0", "\n".join(lines))
    assert lines[-1].split() == ["0", "a.x", "0.5"]
