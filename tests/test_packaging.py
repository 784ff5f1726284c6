"""The sdist and the wheel contain every file of the package, and the wheel works in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from embedcore.version import VERSION

ROOT = Path(__file__).parents[1]
SOURCES = ("embedcore", "tests", "benchmarks", "docs", "scripts", ".ci", ".github")
FILES = ("pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "conftest.py")
MODEL = "test_efficientnet.r160_in1k"


def run(*command, cwd, **environment):
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def package_files():
    """Every file of the package, by its path below the repository."""
    paths = (path for path in (ROOT / "embedcore").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist and the wheel made from it, built from a copy without a network."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=source)
    return folder / "dist" / f"embedcore-{VERSION}.tar.gz", folder / "dist" / f"embedcore-{VERSION}-py3-none-any.whl"


def test_the_sdist_and_the_wheel_contain_every_file(built):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        metadata = archive.read(f"embedcore-{VERSION}.dist-info/METADATA").decode()
    assert package_files() <= in_sdist
    assert {"LICENSE", "conftest.py", "tests/test_packaging.py", "benchmarks/test_models.py"} <= in_sdist
    assert package_files() <= in_wheel
    assert f"embedcore-{VERSION}.dist-info/licenses/LICENSE" in in_wheel
    assert {name.partition("/")[0] for name in in_wheel} == {"embedcore", f"embedcore-{VERSION}.dist-info"}
    assert "License-Expression: Apache-2.0" in metadata


def test_the_wheel_measures_a_model_in_an_empty_folder(built, tmp_path):
    installed, project = tmp_path / "installed", tmp_path / "project"
    project.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", installed]
    run(*pip, built[1], cwd=tmp_path)
    environment = {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    where = run(sys.executable, "-c", "import embedcore; print(embedcore.__file__)", cwd=project, **environment)
    assert Path(where.strip()).is_relative_to(installed)

    run(sys.executable, "-m", "embedcore.cli", "init", cwd=project, **environment)
    lines = (project / "benchmarks" / "requirements.txt").read_text().splitlines()
    (ours,) = [line for line in lines if line.startswith("embedcore")]
    assert ours == f"embedcore[demo] @ {built[1].as_uri()}"
    (tmp_path / "ours.txt").write_text(ours)
    run(*pip[:-2], "--dry-run", "--target", tmp_path / "again", "-r", tmp_path / "ours.txt", cwd=tmp_path)
    pytest_command = [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", f"--embed-roster={MODEL}"]
    pytest_command += [
        "--embed-weights=random",
        "--embed-cache=cache",
        "--embed-max-classes=2",
        "--embed-rounds=1",
        "--embed-processes=1",
    ]
    shown = run(*pytest_command, "-v", "--benchmark-json=run.json", "--embed-report=report", cwd=project, **environment)
    assert f"test_models.py::test_model[{MODEL}]" in shown
    (case,) = json.loads((project / "run.json").read_text())["benchmarks"]
    assert case["extra_info"]["model"] == MODEL
    assert (project / "report" / "index.html").is_file()
