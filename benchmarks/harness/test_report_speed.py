"""`embedcore report` as a process and its page in a browser: four models in 1.5 s; a whole roster in 6 s and 12 MB,
with a first paint in .2 s."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import browsing
import numpy as np
import pytest
import synthetic_runs as made

from embedcore.zoo.families import FAMILIES

pytestmark = pytest.mark.embed_harness

QUERIES, CLASSES = 5_000, 500


def a_saved_run(models):
    """Random models of families of unequal size, with every field of a result."""
    rng = np.random.default_rng(0)
    classes = np.sort(rng.integers(0, CLASSES, QUERIES))
    weights = 1 / (1 + np.arange(len(FAMILIES)))
    infos = []
    for number in range(models):
        family = FAMILIES[rng.choice(len(FAMILIES), p=weights / weights.sum())].slug
        model = f"{family}_net{number // 3}_patch16_224.{('augreg', 'sbb2_e200', 'a1')[number % 3]}_in12k_ft_in1k"
        info = made.result(model, classes, made.hits_of(model, classes, float(rng.beta(4, 3))), family=family)
        scores = info["scores"] | {name: float(rng.random()) for name in ("map_at_r", "knn20", "centroid", "acc_macro")}
        infos.append(
            info
            | {
                "pretraining": ("in1k", "in21k→in1k", "laion2b")[number % 3],
                "licence": ("apache-2.0", "cc-by-nc-4.0")[number % 2],
                "params_m": float(10 ** rng.uniform(0.3, 2.7)),
                "gmacs": float(10 ** rng.uniform(-1, 2.5)),
                "images_per_s": {"forward": float(10 ** rng.uniform(1, 3.5)), "end_to_end": 50.0},
                "scores": scores,
                "ci95": {name: [max(0.0, value - 0.02), value + 0.02] for name, value in scores.items()},
            }
        )
    names = [f"class {number}" for number in range(CLASSES)]
    references = rng.integers(1, 12, CLASSES).tolist()
    return made.saved(infos, classes, dataset={"class_names": names, "class_references": references})


@pytest.mark.parametrize(("models", "target_s"), [(4, 1.5), (1826, 6.0)])
def test_a_report(benchmark, tmp_path, models, target_s):
    run, folder = tmp_path / "run.json", tmp_path / "report"
    run.write_text(json.dumps(a_saved_run(models)))
    ours = []

    def report() -> None:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "embedcore.cli", "report", str(run), "-o", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        ours.append(time.perf_counter() - begin)

    benchmark.pedantic(report, rounds=3)
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    first, filters = in_browser(folder / "index.html")
    benchmark.extra_info.update(
        peer=f"disk {disk / 1e6:.1f} MB, peak {peak / 1e6:.0f} MB, first paint {first:.0f} ms, filter {filters:.0f} ms",
        ours_s=statistics.median(ours),
        target_s=target_s,
    )


def in_browser(page):
    """Return milliseconds to the first contentful paint, and from a filter event to the next frame; medians."""
    paints, filters = [], []
    with browsing.browser() as launched:
        for _ in range(5):
            with browsing.visiting(launched, page, viewport={"width": 1280, "height": 900}) as visit:
                visit.go()
                paints.append(
                    visit.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
                )
                for text in ("vit", "resnet", "12", ""):
                    filters.append(
                        visit.page.evaluate(
                            """text => new Promise(done => {
                                const begun = performance.now();
                                const search = document.querySelector("[name=q]");
                                search.value = text;
                                search.dispatchEvent(new Event("input", { bubbles: true }));
                                requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
                            })""",
                            text,
                        )
                    )
    return statistics.median(paints), statistics.median(filters)
