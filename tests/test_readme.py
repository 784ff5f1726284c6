"""The README tells the truth: its example runs, and its option table is the plugin's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from embedcore.plugin.options import OPTIONS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_it_stands(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    acc, low, high = map(float, re.findall(r"acc ([\d.]+) .* ([\d.]+) to ([\d.]+)\)", done.stdout)[0])
    assert 0.1 < low <= acc <= high < 1  # real weights on few classes: far above the chance of 1 in 32


def test_every_option_is_in_the_table_and_nothing_else():
    documented = set(re.findall(r"--embed-([a-z-]+)", README))
    assert documented == {option.name for option in OPTIONS}


def test_the_commands_are_the_ones_that_ci_runs():
    ci = (Path(__file__).parents[1] / ".ci" / "run").read_text(encoding="utf-8")
    assert "python -m pip install -e '.[demo]' && pytest benchmarks --embed-roster local" in README
    assert "python -m pip install -e '.[test]' && pytest tests" in README
    assert "python -m pip install -e '.[test]' && pytest tests" in ci
