"""``embedcore init``: what a repository needs to benchmark its models and to guard them in CI."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path

from embedcore.errors import UsageError

EXIT_UNUSABLE = 2

TEMPLATES = Path(__file__).with_name("templates")

WRITTEN = {
    "benchmarks/test_models.py": "test_models.py.txt",
    "benchmarks/pytest.ini": "pytest.ini",
    "benchmarks/requirements.txt": "requirements.txt",
    "embedcore-gate.toml": "embedcore-gate.toml",
    ".github/workflows/benchmark.yml": "benchmark.yml",
}
"""Path in the repository → file in `TEMPLATES`."""

SHOWN = "benchmarks/pytest.ini"
"""The settings: where a project has its own, the lines are shown."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``init``."""
    parser = commands.add_parser(
        "init",
        help="write the benchmark, its settings and a CI workflow into a repository",
        description=f"Write {', '.join(WRITTEN)} into a repository. Files that are there already are left as they are.",
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=Path(), help="(default: this folder)")
    parser.set_defaults(run=run, exit_unusable=EXIT_UNUSABLE)


def run(arguments: argparse.Namespace) -> int:
    """Write what is not there yet; gives the exit code."""
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
                raise UsageError(f"{path} cannot be written: something else is in its place") from error
            print(f"left as it is  {path}")
            if name == SHOWN and path.read_text(encoding="utf-8", errors="replace") != text:
                print(f"  Paste what it lacks of this:\n\n{text}")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        else:
            print(f"written        {path}")
    print("\nThe workflow needs a runner with the labels self-hosted and gpu; its first lines say how to name others.")
    print("Next: pytest benchmarks --benchmark-save=before")
    return 0


def requirements() -> list[str]:
    """What is installed here, as lines for pip: this package from where it came, and timm."""
    ours = importlib.metadata.distribution("embedcore")
    came_from = json.loads(ours.read_text("direct_url.json") or "{}")
    version = f"=={ours.version}"
    if "vcs_info" in came_from:
        version = f" @ {came_from['vcs_info']['vcs']}+{came_from['url']}@{came_from['vcs_info']['commit_id']}"
    return [f"embedcore[demo]{version}", f"timm=={importlib.metadata.version('timm')}"]
