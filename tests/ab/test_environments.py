"""Environments of a side, made with a uv that only writes down what it was asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcore.ab.environments import environment_for, ready, side_environment
from embedcore.errors import UsageError

UV = """#!{python}
import json, pathlib, subprocess, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments[0] == "venv":
    subprocess.run([{python!r}, "-m", "venv", "--without-pip", arguments[-1]], check=True)
elif "timm==0.0.0" in arguments:
    print("  x No solution found", file=sys.stderr)
    sys.exit(1)
else:
    packages = next(pathlib.Path(arguments[arguments.index("--python") + 1]).parents[1].glob("lib/*/site-packages"))
    (packages / "timm.py").write_text("__version__ = 'fake'")
"""


@pytest.fixture
def uv(tmp_path, monkeypatch):
    """A fake uv on PATH; gives what it was asked for so far. pip is one that finds nothing."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    (folder / "uv").write_text(UV.format(python=sys.executable, log=str(log)))
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def said(python, code):
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True, env=side_environment()
    ).stdout.strip()


def test_its_own_packages_come_first_and_the_parent_gives_the_rest(uv, tmp_path):
    python = environment_for(["timm==1.0.20"], tmp_path / "cache")
    assert said(python, "import timm; print(timm.__version__)") == "fake"
    assert said(python, "import msgspec; print(msgspec.__file__)") == __import__("msgspec").__file__
    assert said(python, "import sys; print(sys.prefix)").startswith(str(tmp_path))
    assert uv()[1][-2:] == ["--no-deps", "timm==1.0.20"]


def test_the_same_is_made_once_and_what_may_have_changed_anew(uv, tmp_path):
    for _ in range(2):
        environment_for(["timm==1.0.20"], tmp_path / "cache")
    assert len(uv()) == 2
    for _ in range(2):
        environment_for(["git+file:///somewhere/timm@branch"], tmp_path / "cache")
    assert len(uv()) == 6


def test_torch_comes_with_what_belongs_to_it(uv, tmp_path):
    environment_for(["torch==2.5.0", "timm==1.0.20"], tmp_path / "cache")
    assert uv()[1][-2:] == ["torch==2.5.0", "torchvision"]
    assert uv()[2][-2:] == ["--no-deps", "timm==1.0.20"]


def test_one_that_cannot_be_had_is_one_line_and_leaves_nothing(uv, tmp_path):
    for _ in range(2):
        with pytest.raises(UsageError, match=r"'timm==0\.0\.0' cannot be installed: [^\n]+$"):
            environment_for(["timm==0.0.0"], tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]


def test_an_interpreter_must_be_there_and_have_embedcore(tmp_path):
    with pytest.raises(UsageError, match="no such interpreter"):
        ready(str(tmp_path / "python"))
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named timm' >&2; exit 1\n")
    script.chmod(0o755)
    with pytest.raises(UsageError, match="No module named timm; install embedcore there"):
        ready(str(script))
    assert Path(side_environment()["PYTHONPATH"].split(os.pathsep)[0], "embedcore").is_dir()
