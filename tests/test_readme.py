"""The README is correct: its examples run, and its option table is complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from embedcore.plugin.options import OPTIONS
from embedcore.results.result import Result
from embedcore.results.saved import embedcore_block

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


FIRST, SECOND = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(example, folder):
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_first_example_runs(tmp_path):
    acc, low, high = map(float, re.findall(r"acc ([\d.]+) .* ([\d.]+) to ([\d.]+)\)", run(FIRST, tmp_path))[0])
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
    lines = run(SECOND, tmp_path).splitlines()
    assert lines[:2] == ["torch.Size([1, 1280])", "torch.Size([3, 224, 224])"]
    assert "cat/0.png is like cat/" in "\n".join(lines)
    assert re.search(r"acc +1\.0", "\n".join(lines))
    assert lines[-1].split() == ["0", "a.x", "0.5"]


def test_the_option_table_is_complete():
    documented = set(re.findall(r"--embed-([a-z-]+)", README))
    assert documented == {option.name for option in OPTIONS}


def test_ci_runs_the_commands():
    ci = (Path(__file__).parents[1] / ".ci" / "run").read_text(encoding="utf-8")
    assert "python -m pip install -e '.[demo]' && pytest benchmarks --embed-roster local" in README
    assert "python -m pip install -e '.[test]' && pytest tests" in README
    assert "python -m pip install -e '.[test]' && pytest tests" in ci
