"""Run the steps of the workflow of `embedcore init` in order, as its jobs do, on one machine.

Usage: python benchmarks/harness/workflow.py [--shards 2] [--keep DIR]

Each shard and the gate run in a folder of their own; only what the jobs hand on as caches and artifacts is copied.
There are three runs on the default branch: without a baseline, with a rolling one, and also with a fixed one. Models
are timm's smallest, with random weights. Installing and GitHub's own actions are left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from embedcore.cli import main as embedcore
from embedcore.commands.accept import BASELINE
from embedcore.commands.init import TEMPLATES

JOBS = yaml.safe_load((TEMPLATES / "benchmark.yml").read_text(encoding="utf-8"))["jobs"]
SETTINGS = """[pytest]
addopts = --import-mode=importlib
embed_dataset = emoji
embed_max_classes = 24
embed_roster = test_vit*,test_resnet*,test_efficientnet*
embed_weights = random
embed_rounds = 10
"""


def run_step(job: str, name: str, folder: Path, **variables: str) -> tuple[int, dict[str, str]]:
    """Run the script of a step in a folder as GitHub does; return its exit code and outputs."""
    script = next(step["run"] for step in JOBS[job]["steps"] if step.get("name") == name)
    files = {key: folder / key for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.unlink(missing_ok=True)
        file.touch()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {key: str(file) for key, file in files.items()} | variables | {"PATH": path}
    begun = time.monotonic()
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment | {"GITHUB_ACTIONS": "true"},
        capture_output=True,
        text=True,
    )
    lines = (done.stdout + done.stderr).splitlines()
    shown = [line for line in lines if line.startswith(("::", "PASSED", "FAILED", "no baseline", "embedcore:"))]
    print(f"  {job}: {name}: exit {done.returncode}, {time.monotonic() - begun:.0f} s")
    for line in shown or (lines[-5:] if done.returncode else []):
        print(f"      {line}")
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return done.returncode, outputs


def run_workflow(repository: Path, folder: Path, caches: Path, baseline: Path, shards: int) -> dict[str, str]:
    """Run all jobs, update the caches and the rolling baseline, and return the outputs of the comparison."""
    plan = folder / "plan"
    plan.mkdir(parents=True)
    run_step("plan", "Name the shards", plan, SHARDS=str(shards))
    gate = shutil.copytree(repository, folder / "gate")
    (gate / "shards").mkdir()
    for shard in range(1, shards + 1):
        job = shutil.copytree(repository, folder / f"shard-{shard}")
        cache = caches / str(shard)
        if cache.is_dir():
            shutil.copytree(cache, job / ".embedcore" / "cache")
        numbers = {"SHARD": str(shard), "SHARDS": str(shards)}
        code, _ = run_step("measure", "Measure", job, SELECT="", STORE=".embedcore", **numbers)
        if code == 0:
            shutil.copy(job / "out" / f"shard-{shard}.json", gate / "shards")
        for part in ("pixels", "noise", "environments"):
            if (job / ".embedcore" / "cache" / part).is_dir():
                shutil.copytree(job / ".embedcore" / "cache" / part, cache / part, dirs_exist_ok=True)
    run_step("gate", "Merge the shards", gate)
    (gate / "baseline").mkdir()
    if baseline.is_file():
        shutil.copy(baseline, gate / "baseline")
    code, outputs = run_step("gate", "Compare", gate, STORE=str(caches / "gate"))
    if code == 0 and outputs.get("clear") == "true":
        shutil.copy(gate / "run.json", baseline)
    return outputs | {"exit": str(code)}


def main() -> int:
    """Run the workflow three times and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the folders of the jobs in DIR")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.keep or Path(temporary)).resolve()
        repository, baseline = root / "repository", root / "run.json"
        embedcore(["init", str(repository)])
        (repository / "benchmarks" / "pytest.ini").write_text(SETTINGS)
        codes = []
        for number, title in enumerate(("first run", "with a rolling baseline", "with a fixed baseline as well"), 1):
            print(f"{title}:")
            if number == 3:
                embedcore(["accept", "--baseline", str(baseline), "--file", str(repository / BASELINE)])
            outputs = run_workflow(repository, root / f"run-{number}", root / "caches", baseline, arguments.shards)
            codes.append(outputs["exit"])
            print(f"  outputs: {outputs}")
    return int(any(code != "0" for code in codes))


if __name__ == "__main__":
    raise SystemExit(main())
