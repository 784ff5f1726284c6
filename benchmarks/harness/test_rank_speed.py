"""Ranks with intervals of a whole roster: at most 10 s from the verdicts on, and 500 MB; against unpacking."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest
import synthetic_runs as made

pytestmark = pytest.mark.embed_harness

CLASSES = 8_326
SIZES = [(1826, 50_000), (100, 200_000)]
"""Models and queries."""

# In a process of its own. Memory is measured in a second computation, without the memory of reading the run.
CODE = """
import json, sys, time, tracemalloc
from pathlib import Path
import embedcore.retrieval.order
from embedcore.results.ranking import rank_models
from embedcore.results.reading import read_run
from embedcore.results.verdicts import unpack_verdicts
run = read_run(Path(sys.argv[1]))
begin = time.perf_counter()
for result in run.results:
    unpack_verdicts(result.verdicts)
read = time.perf_counter() - begin
begin, cpu = time.perf_counter(), time.process_time()
ranking = rank_models(run.results, run.dataset, ("acc",))["acc"]
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
widths = [model_rank.rank95[1] - model_rank.rank95[0] for model_rank in ranking.model_ranks().values()]
tracemalloc.start()
rank_models(run.results, run.dataset, ("acc",))
print(json.dumps([seconds, cpu, read, tracemalloc.get_traced_memory()[1] / 1e6, max(widths), min(widths)]))
"""


@pytest.fixture(scope="module", params=SIZES, ids="{0[0]} models, {0[1]} queries".format)
def run(tmp_path_factory, request):
    """A saved run of models in small steps, over easy and hard classes."""
    models, queries = request.param
    path = tmp_path_factory.mktemp("run") / "run.json"
    rng = np.random.default_rng(0)
    classes = np.sort(rng.integers(0, CLASSES, queries))
    ease = rng.normal(0, 0.2, CLASSES)
    results = []
    for number in range(models):
        chance = np.clip(0.2 + 0.5 * number / models + ease[classes] + rng.normal(0, 0.1, CLASSES)[classes], 0, 1)
        results.append(made.result(f"net{number}.tag", classes, rng.binomial(5, chance).astype(np.uint8)))
    path.write_text(json.dumps(made.saved(results, classes)))
    return path


def test_a_whole_roster(benchmark, run):
    found = []

    def measure() -> None:
        done = subprocess.run([sys.executable, "-c", CODE, str(run)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))

    benchmark.pedantic(measure, rounds=3)
    ours, cpu, peer, memory, widest, narrowest = map(statistics.median, zip(*found, strict=True))
    assert 0 <= narrowest < widest < max(models for models, _ in SIZES)
    benchmark.extra_info.update(
        peer="unpacking the verdicts",
        ours_s=ours,
        peer_s=peer,
        ratio=peer / ours,
        cpu_s=cpu,
        memory_mb=memory,
        target_s=10.0,
    )
