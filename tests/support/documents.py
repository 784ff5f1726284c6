"""Run the examples of README.md and docs/."""

from __future__ import annotations

import os
import re
from pathlib import Path

import forked

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def run_example(example: str, folder: Path) -> str:
    """Run Python code in a process of its own in a folder; return what it prints."""
    environment = {**os.environ, "COLUMNS": "200"}
    output, errors = folder / "example.out", folder / "example.err"
    for path in (output, errors):
        path.unlink(missing_ok=True)
    process = forked.start(forked.script, example, folder=folder, output=output, errors=errors, environment=environment)
    assert forked.ended(process) == 0, errors.read_text()[-2000:]
    return output.read_text()


def with_fewer_classes(example: str) -> str:
    """Return an example with 16 classes of its images, in small batches, which are timed sooner."""
    shorter, changes = re.subn(r"max_classes=\d+", "max_classes=16, batch_size=4", example)
    assert changes == 1
    return shorter
