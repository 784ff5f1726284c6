"""`embedcore compare` of two whole rosters, as a process: at most 5 s and 500 MB, against reading the two files."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs as made

pytestmark = pytest.mark.embed_harness

MODELS, QUERIES, CLASSES = 1826, 50_000, 8_326


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two saved runs of random models; every 50th got worse."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    classes = np.sort(rng.integers(0, CLASSES, QUERIES))
    sides: dict[str, list] = {"base": [], "new": []}
    for number in range(MODELS):
        model = f"net{number % 90}_{number}.tag"
        hits = rng.binomial(5, 0.3 + 0.4 * number / MODELS, QUERIES).astype(np.uint8)
        sides["base"].append(made.result(model, classes, hits))
        lost = rng.random(QUERIES) < (0.05 if number % 50 == 0 else 0.0)
        sides["new"].append(made.result(model, classes, np.where(lost, 0, hits).astype(np.uint8)))
    for side, results in sides.items():
        (folder / f"{side}.json").write_text(json.dumps(made.saved(results, classes), indent=4))
    return folder


def test_two_whole_rosters(benchmark, runs):
    paths = [str(runs / f"{side}.json") for side in ("base", "new")]
    peer, ours = [], []

    def setup() -> None:
        begin = time.perf_counter()
        for path in paths:
            json.loads(Path(path).read_bytes())
        peer.append(time.perf_counter() - begin)

    def run() -> None:
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "embedcore.cli", "compare", *paths], capture_output=True, text=True
        )
        ours.append(time.perf_counter() - begin)
        assert done.returncode == 1 and "37 worse" in done.stdout.splitlines()[-1], done.stderr

    benchmark.pedantic(run, setup=setup, rounds=3)
    benchmark.extra_info.update(
        peer="reading the two files",
        ours_s=statistics.median(ours),
        peer_s=statistics.median(peer),
        ratio=statistics.median(peer) / statistics.median(ours),
        target_s=5.0,
        peak_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
    )
