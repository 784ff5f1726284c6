"""The tables of docs/datasets.md, each below its heading."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_kinds import Kind, table
from dataset_kinds_folders import FOLDERS, IMAGES
from dataset_kinds_hub import HUB
from dataset_kinds_shards import SHARDS
from dataset_kinds_tables import CSV, FRAMES, LISTS
from dataset_kinds_torch import TORCH

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
GROUPS: Mapping[str, Sequence[Kind]] = {
    "Folders": FOLDERS,
    "Image files": IMAGES,
    "Parquet, Arrow and tar files": SHARDS,
    "csv files": CSV,
    "Lists of images and labels": LISTS,
    "DataFrames": FRAMES,
    "Hugging Face datasets": HUB,
    "torch, torchvision and timm datasets": TORCH,
}
"""Rows below each heading of the page."""


def with_tables(page: str) -> str:
    """Return the page with all tables regenerated. Raises AssertionError for a missing heading."""
    for heading, kinds in GROUPS.items():
        pattern = re.compile(rf"(^## {re.escape(heading)}\n(?:(?!^## |^\|).*\n)*)(?:^\|.*\n)*\n*", re.MULTILINE)
        assert pattern.search(page), f"docs/datasets.md has no heading '## {heading}'"
        rows = table(kinds)
        page = pattern.sub(lambda found, rows=rows: f"{found[1].rstrip()}\n\n{rows}\n\n", page, count=1)
    return page.rstrip() + "\n"
