"""Dataset formats and their results: the rows of docs/datasets.md, each of which is run by a test.

To add a row, add a `Kind` to a list in one of the modules dataset_kinds_*.py (a new list also to `GROUPS` in
dataset_page.py, with its heading in the page), and run `python scripts/make_dataset_table.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Arguments:
    """The arguments of ``embedcore.load_dataset``."""

    images: Any
    labels: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One row: a dataset and what ``load_dataset`` makes of it."""

    looks: str
    """What the dataset looks like; Markdown."""
    make: Callable[[Path], Arguments]
    """Create the dataset in an empty folder."""
    happens: str = ""
    """The result if it is loaded; Markdown."""
    classes: Mapping[str, int] | None = None
    """Number of images of each class, if it is loaded."""
    queries: int | None = None
    """Number of queries; None: leave-one-out."""
    refused: str = ""
    """The message of the UsageError, or a part of it, without the test's folder; empty if it is loaded."""
    note: str = ""
    """The dataset's note, or a part of it; empty if it has none."""
    check: Callable[[Any], None] | None = None
    """Further assertions on the loaded ``Dataset``."""

    def __post_init__(self) -> None:
        assert bool(self.refused) != bool(self.happens), f"{self.looks}: it is either refused, or something happens"
        assert (self.classes is None) == bool(self.refused), f"{self.looks}: classes belong to what is loaded"

    def row(self) -> str:
        """Return the row of the table in Markdown."""
        result = f"refused: {_code(self.refused)}" if self.refused else self.happens
        note = f"; note: {_code(self.note)}" if self.note else ""
        return f"| {self.looks} | {result}{note} |"


def _code(message: str) -> str:
    return "`" + message.replace("|", r"\|") + "`"


def table(kinds: Sequence[Kind]) -> str:
    """Return the table of these rows in Markdown."""
    return "\n".join(["| input | result |", "|---|---|", *(kind.row() for kind in kinds)])


PHOTOS = ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/2.png")
NEGATIVE = (
    "the label -1 is negative, which marks images without a class in many datasets: "
    "leave them out, or name the class in words"
)
SEVERAL = "each image needs one class, a number or a text"
CATS_AND_DOGS = {"cat": 2, "dog": 3}


def photos(folder: Path, names: Sequence[str] = PHOTOS) -> list[Path]:
    """Write a different small RGB image under each name."""
    paths = [folder / name for name in names]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths
