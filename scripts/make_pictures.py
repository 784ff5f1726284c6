"""Write the screenshots of a report to docs/: ``python scripts/make_pictures.py RUN.json``. Needs chromium.

RUN.json is the demo's run, saved by ``pytest benchmarks --embed-roster local --benchmark-json RUN.json``.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import browsing  # noqa: E402

MAX_BYTES = 500_000  # of all pictures together


def main(run: str) -> None:
    taken: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, browsing.browser() as browser:
        subprocess.run([sys.executable, "-m", "embedcore.cli", "report", run, "-o", folder], check=True)
        page = Path(folder) / "index.html"
        wide, narrow = {"width": 1240, "height": 860}, {"width": 390, "height": 844}
        with browsing.visiting(browser, page, viewport=wide, color_scheme="light") as visit:
            visit.go()
            taken["report-summary"] = visit.page.screenshot()
            visit.page.locator("#table-heading").scroll_into_view_if_needed()
            taken["report-table"] = visit.page.locator("section[aria-labelledby=table-heading]").screenshot()
            costs = visit.page.locator("[data-section='What accuracy costs']")
            costs.scroll_into_view_if_needed()
            costs.locator("svg.marks").wait_for()
            visit.settled()
            taken["report-chart"] = costs.screenshot()
        with browsing.visiting(browser, page, viewport=wide, color_scheme="dark") as visit:
            visit.go()
            visit.page.locator("#table a.model").first.click()
            visit.page.wait_for_timeout(300)
            taken["report-model-dark"] = visit.page.screenshot()
        with browsing.visiting(browser, page, viewport=narrow, color_scheme="light") as visit:
            visit.go()
            taken["report-narrow"] = visit.page.screenshot()
    total = 0
    for name, png in taken.items():
        file = ROOT / "docs" / f"{name}.webp"
        with Image.open(io.BytesIO(png)) as picture:
            picture.save(file, quality=82, method=6)
        total += file.stat().st_size
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")
    if total > MAX_BYTES:
        raise SystemExit(f"{total:,} bytes in total; the limit is {MAX_BYTES:,}")


if __name__ == "__main__":
    main(*sys.argv[1:])
