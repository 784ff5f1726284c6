"""Packages of other versions, installed into folders that come first on Python's path."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import filelock

from embedcore.errors import UsageError
from embedcore.files import code_hash
from embedcore.plain import one_line

_TORCH = re.compile(r"torch\b", re.IGNORECASE)
_PIP = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--timeout=10"]


def installed(
    requirements: Sequence[str],
    folder: Path,
    *,
    fixed: bool = True,
    exact: bool = False,
    only_wheels: bool = False,
    seconds: float | None = None,
) -> Path:
    """Install pip requirements into a folder, and return it.

    A `fixed` set of requirements always gives the same packages: they are installed into `folder` once. Others are
    installed each time, into a folder that is named by their content, so that a folder in use never changes.

    `exact`: the requirements name all packages, so that nothing else is installed. `only_wheels`: run no code of a
    package. `seconds`: time limit of each installation. Raises UsageError, with the installer's reason on one line.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if fixed and folder.is_dir():
                return folder
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
                packages = Path(scratch) / "packages"
                for command in [requirements] if exact else [[each] for each in requirements]:
                    _install(command, packages, exact, only_wheels, seconds)
                if not fixed:
                    files = (path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
                    folder = folder.with_name(f"{folder.name}-{code_hash(packages, files)[:12]}")
                if not folder.is_dir():
                    packages.rename(folder)
    except OSError as error:
        raise UsageError(f"packages cannot be installed into {folder}: {error.strerror or error}") from error
    return folder


def _install(requirements: Sequence[str], folder: Path, exact: bool, only_wheels: bool, seconds: float | None) -> None:
    """Install timm without its dependencies, which are present; torch with its own, and the matching torchvision."""
    # An environment created by uv has no pip.
    command = _PIP if find_spec("pip") else ["uv", "pip", "install", "--python", sys.executable]
    command = [*command, "--quiet", "--target", str(folder), *(["--only-binary=:all:"] if only_wheels else [])]
    torch = not exact and any(_TORCH.match(requirement) for requirement in requirements)
    command += [*requirements, "torchvision"] if torch else ["--no-deps", *requirements]
    named = ", ".join(map(repr, requirements)) if len(requirements) < 4 else f"{len(requirements)} packages"
    try:
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=seconds)
        reason = last_line(done.stderr)
        if done.returncode == 0:
            return
        if "connection broken" in done.stderr:
            reason += " (the package index could not be reached)"
    except subprocess.TimeoutExpired:
        reason = f"no answer within {seconds:.0f} s"
    except FileNotFoundError:
        reason = "neither pip nor uv is installed"
    raise UsageError(f"{named} cannot be installed: {reason}")


def last_line(text: str) -> str:
    """Return the last error of pip or uv in their output, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return one_line((errors or lines or ["no error message"])[-1].removeprefix("ERROR:"))[:300]
