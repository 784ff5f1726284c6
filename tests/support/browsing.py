"""Pages of made-up results in a real browser, Debian's chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.report.gallery.gallery import Gallery, gallery_data
from embedcore.report.report_folder import pages
from embedcore.results.leaderboard import boards_of
from embedcore.results.run import Run
from embedcore.zoo.families import FAMILIES

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TITLES = {family.slug: family.title for family in FAMILIES}


def chromium() -> str:
    """Path of the browser. Without one the test is skipped with a visible warning; in CI it fails."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        line = "chromium is not installed, so the page is not tested: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(line)
        warnings.warn(line, stacklevel=2)
        pytest.skip(line)
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@dataclass
class Visit:
    """An open page, with its console messages and requests. `page`: playwright's."""

    page: Any
    address: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, hash: str = "") -> Visit:
        """Open the page again, with this state in its address, and wait for its table."""
        self.page.goto("about:blank")
        self.page.goto(self.address + (f"#{hash}" if hash else ""))
        self.page.wait_for_selector("body[data-ready]")
        return self

    def models(self) -> list[str]:
        """The visible models of the table, from the top."""
        return list(self.page.locator("#table .tabulator-row a.model").all_inner_texts())

    def count(self) -> str:
        return str(self.page.locator("#count").inner_text())

    def drawn(self) -> Visit:
        """Bring each chart and the gallery into view, and wait until they are drawn."""
        for chart in self.page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
            chart.locator(".plot svg.marks").wait_for()
        self.settled()
        if self.page.locator("#gallery").count():
            self.page.locator("#gallery").scroll_into_view_if_needed()
            self.page.locator("#gallery .card").first.wait_for()
        return self

    def settled(self) -> None:
        """Wait until every chart in view is drawn."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('.chart')].filter(f => f.seen).every(f => f.dataset.drawn)"
        )


@contextmanager
def visiting(browser: Any, file: Path, **context: Any) -> Iterator[Visit]:
    """The page of a file from the disk; `context`: playwright's, such as ``color_scheme`` and ``viewport``."""
    opened = browser.new_context(**context)
    visit = Visit(opened.new_page(), file.as_uri())
    visit.page.on(
        "console", lambda output: visit.errors.append(output.text) if output.type in ("error", "warning") else None
    )
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    try:
        yield visit
    finally:
        opened.close()


def a_run(models: int = 24, *, classes: int = 40, seed: int = 0, hostile: bool = False) -> Run:
    """Models of several families, some with missing fields; `hostile`: with harmful names."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), rng.integers(1, 9, classes))
    families = ("vit", "resnet", "convnext", "efficientnet", "swin", "vgg", "mobilenet", "eva", "dino", "clip", "other")
    data = ("in1k", "in21k→in1k", "laion2b", "unknown")
    infos = []
    for place in range(models):
        family = families[min(place // 2 * 7919 % 13, len(families) - 1)]
        name = f"{family}_{place // 2}_patch16_224.{('a', 'b')[place % 2]}_in1k"
        info = made.result(name, labels, made.hits_of(name, labels, float(rng.uniform(0.2, 0.8))))
        score = info["scores"]
        info |= {
            "family": family,
            "pretraining": data[(place + place // 2) % 4],
            "licence": ("apache-2.0", "mit", "cc-by-nc-4.0")[place % 3],
            "params_m": float(10 ** rng.uniform(0, 2.7)),
            "gmacs": float(10 ** rng.uniform(-1, 2)),
            "transform": {**info["transform"], "crop_mode": "center"},
            "input_size": [3, *[(224, 256, 384)[place % 3]] * 2],
            "images_per_s": {"forward": float(10 ** rng.uniform(1, 4)), "end_to_end": 50.0},
            "ci95": {metric: [max(0.0, value - 0.05), min(1.0, value + 0.06)] for metric, value in score.items()},
        }
        if place % 11 == 5:  # such as a user's own model
            info |= {"params_m": None, "gmacs": None, "images_per_s": {}, "input_size": None, "pretraining": None}
            info |= {"licence": None, "transform": {}, "durations": [], "weights": {"source": f"own:{name}"}}
        infos.append(info)
    names = [f"class {number}" for number in range(classes)]
    dataset: dict[str, Any] = {"name": "photos", "references": 300, "acc5_ceiling": 0.71, "chance_acc": 0.02}
    if hostile:
        for place, text in enumerate(HOSTILE):
            infos[place] |= {"model": text, "architecture": text, "tag": text, "licence": text, "pretraining": text}
            infos[place] |= {"family": text, "weights": {"source": text, "id": text, "address": text}}
            names[place] = text
        dataset["name"] = HOSTILE[0]
    dataset |= {"class_names": names, "class_references": [int(n) for n in rng.integers(1, 12, classes)]}
    dataset |= {"credits": [HOSTILE[0]] if hostile else ["Photos by somebody, CC BY 4.0"]}
    excluded = [
        {"model": "gone.x", "family": "vit", "status": "no-weights", "reason": HOSTILE[1] if hostile else "none"}
    ]
    return made.as_run(made.saved(infos, labels, excluded=excluded, dataset=dataset))


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\"'><svg onload=alert(3)>",
    '=HYPERLINK("http://evil.example","x")',
    "{{ 7 * 7 }}${7*7}<!--",
    '@SUM(1;2),"quoted"',
)


def written(run: Run, folder: Path, gallery: Gallery | None = None) -> Path:
    """Write the page of a run, without chart files, and return its path; `gallery`: what its models retrieve."""
    boards = boards_of(run, TITLES)
    retrieved = [None if gallery is None else gallery_data(boards[0], gallery)]
    made = pages(boards, settings=run.settings, machine=run.versions, when=run.datetime, galleries=retrieved)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return folder / "index.html"
