"""The environments of the two sides: an interpreter, and a folder with the packages in which a side differs.

Such a folder comes first on Python's path, so that torch and embedcore need no second installation.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import filelock

from embedcore.errors import UsageError
from embedcore.plain import one_line

FOLDER = "environments"
"""In the cache folder."""

_TORCH = re.compile(r"torch\b(?!vision)", re.IGNORECASE)


class Environment(NamedTuple):
    """Where a side runs."""

    name: str
    """For messages."""
    python: Path
    packages: Path | None = None
    """Folder that comes first on its path."""

    def variables(self) -> dict[str, str]:
        """Its environment variables: ours, with the sources of embedcore and `packages` on the path."""
        sources = Path(__file__).parents[2]
        installed = sources.name in ("site-packages", "dist-packages")
        paths = ["" if installed else str(sources), str(self.packages or ""), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def interpreter(path: str) -> Environment:
    """The environment of an interpreter. Raises UsageError if there is none, or it lacks embedcore."""
    found = shutil.which(path)
    if found is None:
        raise UsageError(f"{path}: no such interpreter, or it is not executable")
    environment = Environment(path, Path(found).absolute())
    command = [found, "-c", "import embedcore, pytest, timm, torch"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment.variables())
    if done.returncode:
        raise UsageError(f"{path} cannot measure: {_last_line(done.stderr)}; install embedcore there")
    return environment


def environment_for(requirements: Sequence[str], cache_folder: Path) -> Environment:
    """This environment with other versions: those that the requirements of pip name.

    Packages from the index are installed into the cache folder once, those from git or a folder each time. Raises
    UsageError with pip's reason if a requirement cannot be installed.
    """
    key = json.dumps([*requirements, sys.executable, sys.version])
    name = re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(requirements)).strip("-")[:40]
    folder = cache_folder / FOLDER / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if any(map(_may_change, requirements)):
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
                    for requirement in requirements:
                        _install(requirement, Path(scratch) / "packages")
                    (Path(scratch) / "packages").rename(folder)
    except OSError as error:
        raise UsageError(f"environment {folder} cannot be made: {error.strerror or error}") from error
    return Environment(" ".join(requirements), Path(sys.executable), folder)


def _may_change(requirement: str) -> bool:
    return "+" in requirement or "/" in requirement or os.sep in requirement or Path(requirement).exists()


def _install(requirement: str, folder: Path) -> None:
    """Install timm without its dependencies, which are here; torch with its own, and the torchvision that fits."""
    what = [requirement, "torchvision"] if _TORCH.match(requirement) else ["--no-deps", requirement]
    uv, python = shutil.which("uv"), sys.executable
    commands = [[uv, "pip", "install", "--python", python]] if uv else []
    # pip also after a failure of uv, which does not read pip's configuration, such as a company's index.
    commands.append([python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
    reasons: list[str] = []
    for command in commands:
        done = subprocess.run([*command, "--quiet", "--target", str(folder), *what], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if "No module named pip" not in done.stderr or not reasons:
            reasons.append(_last_line(done.stderr))
    raise UsageError(f"{requirement!r} cannot be installed: {reasons[-1]}")


def _last_line(text: str) -> str:
    """The last error of pip or uv, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return one_line((errors or lines or ["no output"])[-1].removeprefix("ERROR:"))[:300]
