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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedcore.errors import UsageError
from embedcore.packages import installed, last_line
from embedcore.requirements import is_fixed, name_of, pinned_version

FOLDER = "environments"
"""In the cache folder."""


class Environment(NamedTuple):
    """The environment in which a side runs. The working directory is not on its Python path."""

    name: str
    """For messages."""
    python: Path
    packages: Path | None = None
    """Folder that comes first on its Python path."""
    requirements: tuple[str, ...] = ()
    """What `packages` was installed from."""
    pythonpath: str = ""
    """Further folders of its Python path, behind `packages`."""

    def variables(self) -> dict[str, str]:
        """Return its environment variables: this process's, with another Python path."""
        sources = Path(__file__).parents[2]
        checkout = "" if sources.name in ("site-packages", "dist-packages") else str(sources)
        paths = [checkout, str(self.packages or ""), self.pythonpath]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"}


def interpreter(path: str, pythonpath: str = "") -> Environment:
    """Return the environment of an interpreter. Raises UsageError if it does not exist or lacks embedcore."""
    found = shutil.which(path)
    if found is None:
        raise UsageError(f"{path}: no such interpreter, or it is not executable")
    environment = Environment(path, Path(found).absolute(), pythonpath=pythonpath)
    command = [found, "-c", "import embedcore, pytest, timm, torch"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment.variables())
    if done.returncode:
        raise UsageError(f"{path} cannot measure: {last_line(done.stderr)}; install embedcore there")
    return environment


def environment_for(
    requirements: Sequence[str], cache_folder: Path, *, pythonpath: str = "", exact: bool = False
) -> Environment:
    """Return this environment with the versions that pip requirements name.

    Exact versions are installed into the cache folder once, other requirements each time, since what they name may have
    changed. `exact`: they name all packages in which the environments differ. Raises UsageError with pip's reason if a
    requirement cannot be installed.
    """
    key = json.dumps([*requirements, exact, sys.executable, sys.version])
    name = re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(requirements)).strip("-")[:40]
    folder = cache_folder / FOLDER / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    # A relative path of a requirement is relative to the working directory.
    specs = [str(Path(spec).absolute()) if _is_path(spec) else spec for spec in requirements]
    packages = installed(specs, folder, fixed=all(map(is_fixed, specs)), exact=exact)
    return Environment(" ".join(requirements), Path(sys.executable), packages, tuple(specs), pythonpath)


def _is_path(spec: str) -> bool:
    # As for pip, a bare name is a package of the index, also where a folder of that name exists.
    return (os.sep in spec or spec.startswith(".") or spec.endswith(".whl")) and Path(spec).exists()


def check_code(environment: Environment, code: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError if a side measures other code than was asked for.

    `code`: for timm and torch the ``version``, the ``file`` and whether another installation is ``shadowed``, in a
    process that measures.
    """
    asked = {name_of(requirement): requirement for requirement in environment.requirements}
    for name, found in code.items():
        file, version = Path(str(found["file"])), str(found["version"])
        found_text = f"it would measure {name} {version} in {file.parent}"
        if name in asked and environment.packages is not None:
            wanted = pinned_version(asked[name])
            if not file.resolve().is_relative_to(environment.packages.resolve()):
                raise UsageError(f"{environment.name}: {found_text}, not the installed {asked[name]}")
            if wanted is not None and version.partition("+")[0] != wanted.partition("+")[0]:
                raise UsageError(f"{environment.name}: {found_text}, not {asked[name]}")
        elif found["shadowed"] and not _within(file, environment):
            raise UsageError(f"{environment.name}: {found_text}, not the installed one")


def _within(file: Path, environment: Environment) -> bool:
    folders = [Path(folder) for folder in environment.pythonpath.split(os.pathsep) if folder]
    folders += [environment.packages] if environment.packages is not None else []
    return any(file.resolve().is_relative_to(folder.resolve()) for folder in folders)
