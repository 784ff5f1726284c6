"""``embedcore init``: write the benchmark, its settings and the CI workflow into a repository."""

from __future__ import annotations

import argparse
import configparser
import importlib.metadata
import json
import posixpath
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.requirements import distributions, shadowing

TEMPLATES = Path(__file__).with_name("templates")

REQUIREMENTS = "benchmarks/requirements.txt"
SETTINGS = "benchmarks/pytest.ini"
"""If it exists already, our lines are printed for pasting."""
WORKFLOW = ".github/workflows/benchmark.yml"

WRITTEN = {
    "benchmarks/test_models.py": "test_models.py.txt",
    SETTINGS: "pytest.ini",
    REQUIREMENTS: "requirements.txt",
    "embedcore-gate.toml": "embedcore-gate.toml",
    WORKFLOW: "benchmark.yml",
}
"""Path in the repository → file in `TEMPLATES`. The workflow comes after the settings, which it needs."""

_CHOSEN = {"dataset": "emoji", "roster": "local"}
"""Settings that options set, with their values in the template."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "init",
        help="write the benchmark, its settings and a CI workflow into a repository",
        description=f"Write {', '.join(WRITTEN)} into a repository. Existing files are not changed.",
    )
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path, default=Path(), help="the repository (default: .)"
    )
    for name, default in _CHOSEN.items():
        parser.add_argument(
            f"--{name}", metavar="SPEC", default=default, type=_one_line,
            help=f"embed_{name} of the settings; paths are relative to the repository (default: {default})",
        )  # fmt: skip
    parser.set_defaults(run=run)


def _one_line(text: str) -> str:
    if not text.strip() or text != text.splitlines()[0]:
        raise argparse.ArgumentTypeError("must be one line of text")
    return text.strip()


def run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    unnoticed: list[str] = []
    for name, template in WRITTEN.items():
        path = folder / name
        text = _content(name, template, arguments)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            if not path.is_file():
                raise UsageError(f"{path} cannot be written: it exists and is not a file") from error
            print(f"unchanged      {path}")
            present = path.read_text(encoding="utf-8", errors="replace")
            if name == SETTINGS and present != text:
                print(f"  Add any of these lines that it lacks:\n\n{text}")
            if name == WORKFLOW:
                unnoticed = [pattern for pattern in trigger_paths(folder / SETTINGS) if pattern not in present]
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        else:
            print(f"written        {path}")
            if name == REQUIREMENTS and "file:" in text:
                print("  It names a file or folder of this machine, which a CI runner does not have: see its comment.")
    if unnoticed:
        print(f"  Add to both lists of paths: {', '.join(unnoticed)}")
    print(
        "\nThe workflow runs on a runner labelled self-hosted and gpu; its first lines explain how to choose another."
    )
    change = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    print(f"Next: {change}pytest benchmarks --benchmark-save=before")
    return 0


def _content(name: str, template: str, arguments: argparse.Namespace) -> str:
    """Return what to write into a file. The settings are written before the workflow, which reads them."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    if name == REQUIREMENTS:
        return text + "".join(f"{line}\n" for line in requirements())
    if name == SETTINGS:
        for key, default in _CHOSEN.items():
            text = text.replace(f"embed_{key} = {default}\n", f"embed_{key} = {getattr(arguments, key)}\n")
    if name == WORKFLOW:
        ours = f"      - {WORKFLOW}\n"
        more = (f"      - {json.dumps(pattern)}\n" for pattern in trigger_paths(arguments.folder / SETTINGS))
        text = text.replace("[main, master]", f"[{_default_branch(arguments.folder) or 'main, master'}]")
        return text.replace(ours, "".join([ours, *more]))
    return text


def _default_branch(folder: Path) -> str:
    """Return the default branch of the repository's remote as YAML; "" if it is not known."""
    command = ["git", "-C", str(folder), "symbolic-ref", "--short", "refs/remotes/origin/HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return json.dumps(done.stdout.strip().removeprefix("origin/")) if done.returncode == 0 else ""


def requirements() -> Iterator[str]:
    """Yield pip requirements and comments: embedcore, timm and torch as they are installed here.

    embedcore is a version of an index only if it came from one, else its repository and commit, its file or its folder.
    """
    for name in ("embedcore", "timm", "torch", "torchvision"):
        requirement = _requirement(name)
        if requirement is None or "file:" in requirement:
            yield f"# Works on this machine only. Elsewhere: {name} @ git+https://HOST/{name}@COMMIT, or its wheel."
        if requirement is not None:
            yield requirement.replace("embedcore", "embedcore[demo]", 1) if name == "embedcore" else requirement


def _requirement(name: str) -> str | None:
    """Return the requirement of an installed package; None if it cannot be installed from where it is."""
    found = distributions().get(name)
    source = shadowing(name)
    if source is None and found is not None and "dir_info" in found.direct_url():
        source = found.folder
    if source is not None:
        is_project = any((source / file).is_file() for file in ("pyproject.toml", "setup.py"))
        return f"{name} @ {source.absolute().as_uri()}" if is_project else None
    if found is not None and found.direct_url():
        return found.requirement()
    return f"{name}=={importlib.metadata.version(name).partition('+')[0]}"  # 2.14.1+cu130 is a build of 2.14.1


def trigger_paths(settings: Path) -> list[str]:
    """Return patterns of the images, weights and rosters in the repository that the settings name, for a workflow."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return []
    chosen = parser["pytest"] if parser.has_section("pytest") else {}
    patterns = [_dataset_pattern(chosen.get("embed_dataset", "emoji"))]
    weights = chosen.get("embed_weights", "auto")
    patterns += [f"{weights}/**"] if weights not in ("auto", "random") else []
    patterns += [part for part in chosen.get("embed_roster", "").split(",") if part.strip().endswith((".txt", ".toml"))]
    inside = (posixpath.normpath(pattern.strip()) for pattern in patterns if pattern)
    return [pattern for pattern in inside if not pattern.startswith(("/", "~", "..", "benchmarks/", "**"))]


def _dataset_pattern(spec: str) -> str:
    from embedcore.images.archives import SUFFIXES
    from embedcore.images.emoji import NAMES
    from embedcore.images.timm_sets import SCHEMES

    if spec in NAMES or spec.partition("/")[0] in SCHEMES:
        return ""
    if not spec.startswith("csv:"):
        return spec if spec.lower().endswith(SUFFIXES) else f"{spec}/**"
    file = re.sub(r"\?[^?]*=[^?]*$", "", spec.removeprefix("csv:"))
    folder = posixpath.dirname(file)
    return f"{folder}/**" if folder else file
