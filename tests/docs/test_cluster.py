"""The commands of the page on clusters run, and its files are what their systems read."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import forked
import numpy as np
import pytest
import yaml
from documents import ROOT, page
from PIL import Image

from embedcore.cli import main
from embedcore.results.reading import read_run

SECTION = page("cluster.md").partition("## Run all of timm on a cluster")[2].partition("\n## Ray")[0]
SHELL, SLURM = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)
KUBERNETES, SKYPILOT = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL))
MODELS = ("test_vit.r160_in1k", "test_resnet.r160_in1k")


def workers_of_the_page() -> dict[str, list[str]]:
    """The arguments of pytest in each file."""
    first, *_ = SHELL.splitlines()
    (container,) = KUBERNETES["spec"]["template"]["spec"]["containers"]
    commands = {
        "shell": shlex.split(first, comments=True),
        "slurm": shlex.split(SLURM.splitlines()[-1].removeprefix("srun ")),
        "kubernetes": container["command"],
        "skypilot": shlex.split(SKYPILOT["run"]),
    }
    assert {command[0] for command in commands.values()} == {"pytest"}
    return {name: command[1:] for name, command in commands.items()}


@pytest.fixture
def shared(tmp_path):
    """A folder with the products of the page."""
    for label in range(3):
        for number in range(2):
            path = tmp_path / "products" / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([label, number]).integers(0, 80, (32, 32, 3))
            Image.fromarray((noise + 80 * np.eye(3, dtype=int)[label]).astype(np.uint8)).save(path)
    return tmp_path


def test_the_commands_run(shared: Path, capsys, monkeypatch):
    monkeypatch.chdir(shared)
    settings = f"-p no:cacheprovider --embed-roster={','.join(MODELS)} --embed-weights=random --embed-rounds=2"
    environment = {**os.environ, "PYTEST_ADDOPTS": f"{settings} --embed-processes=1 --embed-cache={shared / 'cache'}"}
    for place, arguments in enumerate(workers_of_the_page().values()):
        here = [word.replace("/shared", str(shared)) for word in arguments]
        here[here.index("benchmarks")] = str(ROOT / "benchmarks" / "test_models.py")
        output = shared / f"output-{place}"
        process = forked.start(forked.lean_session, *here, folder=shared, output=output, environment=environment)
        assert forked.ended(process) == 0, output.read_text()
        assert ("no case is left" in output.read_text()) == (place > 0)
    for line in SHELL.splitlines()[1:]:
        program, *words = shlex.split(line, comments=True)
        assert program == "embedcore"
        assert main([word.replace("/shared", str(shared)) for word in words]) == 0
    assert {result.model for result in read_run(shared / "run.json").results} == set(MODELS)
    assert (shared / "report" / "index.html").is_file()


def test_the_job_of_kubernetes_has_the_fields_of_its_reference():
    spec = KUBERNETES["spec"]
    pod = spec["template"]["spec"]
    assert (KUBERNETES["apiVersion"], KUBERNETES["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert pod["restartPolicy"] == "Never"  # else backoffLimitPerIndex and podFailurePolicy are refused
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"] == {"operator": "In", "values": [1]}
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"]: "/shared" for volume in pod["volumes"]}
