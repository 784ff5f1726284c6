"""``embedcore init``: write the benchmark, its settings and the CI workflow into a repository."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path

from embedcore.errors import UsageError

TEMPLATES = Path(__file__).with_name("templates")

WRITTEN = {
    "benchmarks/test_models.py": "test_models.py.txt",
    "benchmarks/pytest.ini": "pytest.ini",
    "benchmarks/requirements.txt": "requirements.txt",
    "embedcore-gate.toml": "embedcore-gate.toml",
    ".github/workflows/benchmark.yml": "benchmark.yml",
}
"""Path in the repository → file in `TEMPLATES`."""

SETTINGS = "benchmarks/pytest.ini"
"""If it exists already, our lines are printed for pasting."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``init``."""
    parser = commands.add_parser(
        "init",
        help="write the benchmark, its settings and a CI workflow into a repository",
        description=f"Write {', '.join(WRITTEN)} into a repository. Existing files are not changed.",
    )
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path, default=Path(), help="the repository (default: .)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the missing files and return the exit code."""
    for name, template in WRITTEN.items():
        path: Path = arguments.folder / name
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        if name == "benchmarks/requirements.txt":
            text += "".join(f"{line}\n" for line in requirements())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            if not path.is_file():
                raise UsageError(f"{path} cannot be written: it exists and is not a file") from error
            print(f"unchanged      {path}")
            if name == SETTINGS and path.read_text(encoding="utf-8", errors="replace") != text:
                print(f"  Add any of these lines that it lacks:\n\n{text}")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        else:
            print(f"written        {path}")
    print(
        "\nThe workflow runs on a runner labelled self-hosted and gpu; its first lines explain how to choose another."
    )
    print("Next: pytest benchmarks --benchmark-save=before")
    return 0


def requirements() -> list[str]:
    """Return pip requirements for timm and the installed embedcore, with its repository if it came from one."""
    ours = importlib.metadata.distribution("embedcore")
    origin = json.loads(ours.read_text("direct_url.json") or "{}")
    version = f"=={ours.version}"
    if "vcs_info" in origin:
        version = f" @ {origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
    return [f"embedcore[demo]{version}", f"timm=={importlib.metadata.version('timm')}"]
