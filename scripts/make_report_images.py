"""Write the report's screenshots of docs/images from a page: python scripts/make_report_images.py report/index.html

The page is that of `pytest benchmarks --embed-roster local --embed-dataset objects --embed-report report`. Needs the
test requirements and chromium.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import browsing  # noqa: E402

MOST_BYTES = 90_000
SHOTS: dict[str, dict[str, Any]] = {
    "report-summary": {"viewport": {"width": 1280, "height": 800}},
    "report-table": {"viewport": {"width": 1280, "height": 560}, "part": "#table-heading"},
    "report-chart": {"viewport": {"width": 800, "height": 400}, "part": "[data-section='Cost of accuracy']"},
    "report-narrow": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5},
    "report-model-dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark", "model": True},
}


def main(page: Path) -> None:
    with browsing.browser() as browser:
        for name, options in SHOTS.items():
            part, model = options.pop("part", None), options.pop("model", False)
            with browsing.visiting(browser, page, **options) as visit:
                visit.go()
                if model:
                    first = json.loads(visit.page.locator("#data").text_content())["models"][0]["model"]
                    visit.go(f"model={first}")
                if part:
                    visit.page.locator(part).first.evaluate("element => element.scrollIntoView()")
                visit.page.wait_for_timeout(1500)  # charts are drawn when they come into view
                picture = Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
            file = ROOT / "docs" / "images" / f"{name}.webp"
            quality = 90
            while True:
                picture.save(file, "WEBP", quality=quality, method=6)
                if file.stat().st_size <= MOST_BYTES:
                    break
                quality -= 10


if __name__ == "__main__":
    main(Path(sys.argv[1]))
