"""Write the tables of docs/datasets.md from the rows that the tests run: python scripts/make_dataset_table.py."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from dataset_page import PAGE, with_tables  # noqa: E402

PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
