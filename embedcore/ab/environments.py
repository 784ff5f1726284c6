"""The interpreter of a side: one that is ready, or that of a virtual environment made for a requirement.

Such an environment holds only what was asked for and sees all else in the environment that runs now, so that neither
torch nor embedcore is downloaded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import filelock

from embedcore.errors import UsageError
from embedcore.files import written_whole
from embedcore.plain import one_line
from embedcore.version import VERSION

FOLDER = "environments"
"""In the cache folder."""

_WHOLE = "embedcore-environment.json"
_PTH = "embedcore_parent.pth"
_TORCH = re.compile(r"torch\b(?!vision)", re.IGNORECASE)


def ready(interpreter: str) -> Path:
    """The path of an interpreter that is there. Raises UsageError for one that is not, or that is no Python."""
    found = shutil.which(interpreter)
    if found is None:
        raise UsageError(f"{interpreter}: no such interpreter, or not one that may be run")
    done = subprocess.run(
        [found, "-c", "import embedcore, pytest, timm, torch"], capture_output=True, text=True, env=side_environment()
    )
    if done.returncode:
        raise UsageError(f"{interpreter} cannot measure: {_last_line(done.stderr)}; install embedcore there")
    return Path(found).absolute()


def environment_for(requirements: Sequence[str], cache_folder: Path) -> Path:
    """The interpreter of an environment with these requirements of pip, made now or taken from the cache folder.

    One from git, or from a folder, is made anew each time, since what it leads to may have changed. Raises UsageError
    with pip's own reason where a requirement cannot be had.
    """
    key = json.dumps([*requirements, sys.executable, sys.version, VERSION])
    name = re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(requirements)).strip("-")[:40]
    folder = cache_folder / FOLDER / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not (folder / _WHOLE).is_file() or any(map(_may_change, requirements)):
                _make(folder, requirements)
    except OSError as error:
        raise UsageError(f"environment {folder} cannot be made: {error.strerror or error}") from error
    return _python(folder)


def side_environment() -> dict[str, str]:
    """The environment variables of a side: ours, and where embedcore is, should it run from a folder of sources."""
    sources = Path(__file__).parents[2]
    variables = dict(os.environ)
    if sources.name not in ("site-packages", "dist-packages"):
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(sources), variables.get("PYTHONPATH", "")]))
    return variables


def _may_change(requirement: str) -> bool:
    return any(sign in requirement for sign in ("git+", "://", "/", os.sep)) or Path(requirement).exists()


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _make(folder: Path, requirements: Sequence[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], "uv venv")
    else:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], "venv")
    try:
        for requirement in requirements:
            _install(uv, _python(folder), requirement)
    except UsageError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Only now, so that nothing of the parent is taken for installed here, or for something to remove.
    parents = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    lines = [f"import site; site.addsitedir({parent!r})\n" for parent in parents if Path(parent).is_dir()]
    (_packages(folder) / _PTH).write_text("".join(lines))
    with written_whole(folder / _WHOLE) as file:
        file.write(json.dumps({"requirements": list(requirements), "parent": sys.executable}).encode())


def _packages(folder: Path) -> Path:
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    return Path(sysconfig.get_path("purelib", scheme, {"base": str(folder), "platbase": str(folder)}))


def _install(uv: str | None, python: Path, requirement: str) -> None:
    """timm alone, since all that it needs is here; torch with what belongs to it, torchvision too."""
    what = [requirement, "torchvision"] if _TORCH.match(requirement) else ["--no-deps", requirement]
    ways = [[uv, "pip", "install", "--quiet", "--python", str(python)]] if uv else []
    # Also after uv, which knows nothing of pip's own settings, such as an index of the house.
    ways.append([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"])
    said = ""
    for way in ways:
        done = subprocess.run([*map(str, way), *what], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if "No module named pip" not in done.stderr or not said:
            said = _last_line(done.stderr)
    raise UsageError(f"{requirement!r} cannot be installed: {said}")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"{what} cannot make an environment: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    """The line that says most: pip's or uv's last error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return one_line((errors or lines or ["it said nothing"])[-1].removeprefix("ERROR:"))[:300]
