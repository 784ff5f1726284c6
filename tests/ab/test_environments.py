"""Environments of a side, made by a fake uv that records its arguments, where there is no pip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcore import packages
from embedcore.ab.environments import environment_for, interpreter
from embedcore.errors import UsageError

UV = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if "timm==0.0.0" in arguments:
    print("  x No solution found", file=sys.stderr)
    sys.exit(1)
packages = pathlib.Path(arguments[arguments.index("--target") + 1])
packages.mkdir(exist_ok=True)
(packages / "timm.py").write_text("__version__ = 'fake'")
"""


@pytest.fixture
def uv(tmp_path, monkeypatch):
    """A fake uv on PATH, without pip; returns its calls so far."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    (folder / "uv").write_text(UV.format(python=sys.executable, log=str(log)))
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def output(environment, code):
    command = [str(environment.python), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment.variables())
    return done.stdout.strip()


def test_packages_of_a_side_come_first_on_the_path(uv, tmp_path):
    environment = environment_for(["timm==1.0.20"], tmp_path / "cache")
    assert environment.name == "timm==1.0.20"
    assert output(environment, "import timm; print(timm.__version__)") == "fake"
    assert output(environment, "import msgspec; print(msgspec.__file__)") == __import__("msgspec").__file__
    assert environment.packages.is_relative_to(tmp_path / "cache")
    assert uv()[0][-2:] == ["--no-deps", "timm==1.0.20"]


def test_index_packages_are_installed_once_and_git_packages_each_time(uv, tmp_path):
    for _ in range(2):
        environment_for(["timm==1.0.20"], tmp_path / "cache")
    assert len(uv()) == 1
    for _ in range(2):
        environment_for(["git+file:///somewhere/timm@branch"], tmp_path / "cache")
    assert len(uv()) == 3


def test_torch_comes_with_its_dependencies_and_torchvision(uv, tmp_path):
    environment_for(["torch==2.5.0", "timm==1.0.20"], tmp_path / "cache")
    assert uv()[0][-2:] == ["torch==2.5.0", "torchvision"]
    assert uv()[1][-2:] == ["--no-deps", "timm==1.0.20"]


def test_a_failed_installation_is_one_line_and_leaves_nothing(uv, tmp_path):
    for _ in range(2):
        with pytest.raises(UsageError, match=r"'timm==0\.0\.0' cannot be installed: [^\n]+$"):
            environment_for(["timm==0.0.0"], tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]


def test_without_pip_and_uv_the_message_says_so(uv, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"'timm==1\.0\.20' cannot be installed: neither pip nor uv is installed"):
        environment_for(["timm==1.0.20"], tmp_path / "cache")


def test_an_interpreter_must_exist_and_have_embedcore(tmp_path):
    with pytest.raises(UsageError, match="no such interpreter"):
        interpreter(str(tmp_path / "python"))
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named timm' >&2; exit 1\n")
    script.chmod(0o755)
    with pytest.raises(UsageError, match="No module named timm; install embedcore there"):
        interpreter(str(script))
    variables = interpreter(sys.executable).variables()
    assert Path(variables["PYTHONPATH"].split(os.pathsep)[0], "embedcore").is_dir()
