"""Collecting every case of the roster, against importing timm alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.embed_harness

ROOT = Path(__file__).parents[2]
PAIRS = 5


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    # As users run it: with compiled modules kept, so that other plugins' modules are not compiled at each start.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def test_collection_over_import(benchmark):
    ours, peer = [], []

    def pair():
        ours.append(seconds("-m", "pytest", "benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider"))
        peer.append(seconds("-c", "import timm"))

    benchmark.pedantic(pair, rounds=PAIRS, warmup_rounds=1)
    ours_s, peer_s = statistics.median(ours), statistics.median(peer)
    benchmark.extra_info.update(
        peer="python -c 'import timm'", ours_s=ours_s, peer_s=peer_s, extra_s=ours_s - peer_s, target_extra_s=1.5
    )
