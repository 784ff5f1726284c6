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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from embedcore.errors import UsageError
from embedcore.packages import installed, last_line

FOLDER = "environments"
"""In the cache folder."""


class Environment(NamedTuple):
    """The environment in which a side runs."""

    name: str
    """For messages."""
    python: Path
    packages: Path | None = None
    """Folder that comes first on its Python path."""

    def variables(self) -> dict[str, str]:
        """Return its environment variables: this process's, with embedcore's sources and `packages` on the path."""
        sources = Path(__file__).parents[2]
        installed = sources.name in ("site-packages", "dist-packages")
        paths = ["" if installed else str(sources), str(self.packages or ""), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def interpreter(path: str) -> Environment:
    """Return the environment of an interpreter. Raises UsageError if it does not exist or lacks embedcore."""
    found = shutil.which(path)
    if found is None:
        raise UsageError(f"{path}: no such interpreter, or it is not executable")
    environment = Environment(path, Path(found).absolute())
    command = [found, "-c", "import embedcore, pytest, timm, torch"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment.variables())
    if done.returncode:
        raise UsageError(f"{path} cannot measure: {last_line(done.stderr)}; install embedcore there")
    return environment


def environment_for(requirements: Sequence[str], cache_folder: Path) -> Environment:
    """Return this environment with the versions that pip requirements name.

    Packages from the index are installed into the cache folder once, those from git or a folder each time. Raises
    UsageError with pip's reason if a requirement cannot be installed.
    """
    key = json.dumps([*requirements, sys.executable, sys.version])
    name = re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(requirements)).strip("-")[:40]
    folder = cache_folder / FOLDER / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    # A relative path of a requirement is relative to the working directory.
    specs = [str(Path(spec).absolute()) if Path(spec).exists() else spec for spec in requirements]
    packages = installed(specs, folder, again=any("+" in spec or "/" in spec or os.sep in spec for spec in specs))
    return Environment(" ".join(requirements), Path(sys.executable), packages)
