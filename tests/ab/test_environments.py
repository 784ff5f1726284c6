"""Environments of a side, made by a fake uv that records its arguments, where there is no pip."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcore import packages
from embedcore.ab.environments import Environment, check_code, environment_for, interpreter
from embedcore.ab.sides import _PROGRAM
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


def test_exact_versions_are_installed_once_and_others_each_time(uv, tmp_path):
    first, second = (environment_for(["timm==1.0.20"], tmp_path / "cache") for _ in range(2))
    assert len(uv()) == 1 and first == second
    for number, spec in enumerate(("git+file:///somewhere/timm@branch", "timm", "timm>=1.0"), start=1):
        first, second = (environment_for([spec], tmp_path / "cache") for _ in range(2))
        assert len(uv()) == 1 + 2 * number
        assert first == second, "equal code is one environment"


def test_other_code_of_one_requirement_is_another_environment(uv, tmp_path, monkeypatch):
    """The folder of the first stays as it is, since another command may use it."""
    before = environment_for(["timm"], tmp_path / "cache")
    (tmp_path / "bin" / "uv").write_text(
        UV.format(python=sys.executable, log=str(tmp_path / "log")).replace("fake", "new")
    )
    after = environment_for(["timm"], tmp_path / "cache")
    assert before.packages != after.packages
    assert [output(each, "import timm; print(timm.__version__)") for each in (before, after)] == ["fake", "new"]
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.name.startswith(".new-")]


def test_a_bare_name_is_a_package_of_the_index_beside_a_folder_of_that_name(uv, tmp_path, monkeypatch):
    (tmp_path / "clone" / "timm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "clone")
    environment_for(["timm"], tmp_path / "cache")
    environment_for(["./timm"], tmp_path / "cache")
    assert [call[-1] for call in uv()] == ["timm", str(tmp_path / "clone" / "timm")]


def test_all_packages_of_an_exact_environment_are_installed_at_once(uv, tmp_path):
    environment_for(["torch==2.5.0", "timm==1.0.20", "numpy==2.0.0"], tmp_path / "cache", exact=True)
    assert len(uv()) == 1
    assert uv()[0][-4:] == ["--no-deps", "torch==2.5.0", "timm==1.0.20", "numpy==2.0.0"]


def test_the_working_directory_and_pythonpath_are_not_on_the_path_of_a_side(uv, tmp_path, monkeypatch):
    for folder in ("clone", "pythonpath"):
        (tmp_path / folder / "timm").mkdir(parents=True)
        (tmp_path / folder / "timm" / "__init__.py").write_text(f"__version__ = {folder!r}")
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "pythonpath"))
    found = "import importlib.util; print(importlib.util.find_spec('timm').origin)"
    code = f"{_PROGRAM.partition('from embedcore')[0]}{found}"
    installed = importlib.util.find_spec("timm").origin
    here = Environment("here", Path(sys.executable))
    assert output(here, code) == installed
    assert output(environment_for(["timm==1.0.20"], tmp_path / "cache"), code).startswith(f"{tmp_path}/cache")
    asked_for = here._replace(pythonpath=os.environ["PYTHONPATH"])
    assert output(asked_for, code).startswith(os.environ["PYTHONPATH"])
    older = {**here.variables(), "PYTHONSAFEPATH": ""}  # as before Python 3.11
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=older)
    assert done.stdout.strip() == installed


@pytest.mark.parametrize(
    ("requirements", "found", "message"),
    [
        (("timm==1.0.20",), ("1.0.20", "packages", False), None),
        (("timm==1.0.20",), ("1.0.20+cpu", "packages", False), None),
        (("timm==1.0.20",), ("9.9.9", "packages", False), r"timm 9\.9\.9 in .*, not timm==1\.0\.20$"),
        (("timm==1.0.20",), ("1.0.20", "clone", True), r"in /.*/clone/timm, not the installed timm==1\.0\.20$"),
        (("timm",), ("9.9.9", "clone", True), "not the installed timm$"),
        ((), ("9.9.9", "clone", True), "not the installed one$"),
        ((), ("9.9.9", "site-packages", False), None),
        ((), ("9.9.9", "asked-for", True), None),
        (("torch==2.5.0",), ("9.9.9", "clone", True), "not the installed one$"),
    ],
)
def test_a_side_measures_what_was_asked_for(tmp_path, requirements, found, message):
    version, folder, shadowed = found
    packages = tmp_path / "packages" if requirements else None
    side = Environment("A", Path(sys.executable), packages, requirements, str(tmp_path / "asked-for"))
    file = tmp_path / folder / "timm" / "__init__.py"
    code = {"timm": {"version": version, "file": str(file), "shadowed": shadowed}}
    if message is None:
        check_code(side, code)
    else:
        with pytest.raises(UsageError, match=f"A: it would measure .*{message}"):
            check_code(side, code)


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
