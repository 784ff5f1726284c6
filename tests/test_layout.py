"""The rules of the layout: imports point one way, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import embedcore

PACKAGE = Path(embedcore.__file__).parent
# results comes before measure, which produces them.
ROOMS = ["zoo", "images", "embed", "retrieval", "results", "measure", "compare", "ab", "report"]
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    room, imported = room_of(file), imported_modules(file)
    libraries = {name.partition(".")[0] for name in imported}
    if room != "zoo":
        assert "timm" not in libraries or file.name == "machine.py", "only zoo/ imports timm"
    if room != "plugin":
        libraries_of_pytest = {name for name in imported if name.startswith(("pytest", "_pytest"))}
        assert all(name.startswith("pytest_benchmark.stats") for name in libraries_of_pytest), "only plugin/ does"
    if room in ("results", "compare", "ab", "report"):
        assert "torch" not in libraries
    if room in ROOMS:
        allowed = {
            *ROOMS[: ROOMS.index(room) + 1],
            "durations",
            "errors",
            "files",
            "forkserver",
            "frames",
            "interrupts",
            "messages",
            "packages",
            "plain",
            "progress",
            "requirements",
            "version",
        }
        used = {name.split(".")[1] for name in imported if name.startswith("embedcore.")}
        assert used <= allowed, f"{room}/ may not import {used - allowed}"


def test_no_modules_import_each_other_in_a_circle():
    """Neither at the top of a module, nor inside a function, nor for types alone."""
    files = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in FILES}
    imports = {name: imported_modules(file) & files.keys() - {name} for name, file in files.items()}
    while free := [name for name, needed in imports.items() if not needed & imports.keys()]:
        for name in free:
            del imports[name]
    assert not imports, {name: sorted(needed & imports.keys()) for name, needed in imports.items()}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("embedcore", {"torch", "timm", "numpy", "PIL", "tabulate"}),
        ("embedcore.plugin.hooks", {"torch", "timm", "numpy", "PIL", "tabulate"}),
        ("embedcore.results.result", {"torch", "timm", "numpy"}),
        ("embedcore.compare.verdict", {"torch", "timm"}),
        ("embedcore.compare.configurations", {"torch", "timm"}),
        ("embedcore.ab.compare_sides", {"torch", "timm"}),
        ("embedcore.report.report_folder", {"torch", "timm"}),
        ("embedcore.retrieval.metrics", {"torch", "timm"}),
        ("embedcore.measure.node_worker", {"torch", "timm"}),
        ("embedcore.notebook.comparing", {"torch", "timm", "pandas", "altair"}),
        ("embedcore.notebook.ranking_tables", {"torch", "timm", "pandas", "altair"}),
    ],
)
def test_import_stays_light(module, absent):
    code = f"import sys, {module}; print(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_top_level_names_exist():
    for name in embedcore.__all__:
        assert getattr(embedcore, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        embedcore.nonsense  # noqa: B018
