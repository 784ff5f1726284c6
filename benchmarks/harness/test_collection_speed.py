"""Collecting every case of the roster, against importing timm alone; resuming beside many earlier runs."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.embed_harness

ROOT = Path(__file__).parents[2]
PAIRS = 5
JOURNALS = 3000


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


def test_resume_beside_many_journals(benchmark, tmp_path):
    def session(cache):
        arguments = ("--embed-roster", "test_vit.r160_in1k", "--embed-weights", "random", "--embed-max-classes", "2")
        quick = ("--embed-rounds", "1", "--embed-processes", "1", "--embed-resume", "--embed-cache", str(cache))
        return seconds("-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", *arguments, *quick)

    few, many = tmp_path / "few", tmp_path / "many"
    for cache in (few, many):
        session(cache)
    (journal,) = (many / "runs").glob("*.jsonl")
    for number in range(JOURNALS):
        shutil.copy2(journal, journal.with_name(f"20200101T000000000000-{number}.jsonl"))
    first_s = session(many)  # reads the header of each journal
    alone, beside = [], []

    def pair():
        alone.append(session(few))
        beside.append(session(many))

    benchmark.pedantic(pair, rounds=PAIRS)
    alone_s, beside_s = statistics.median(alone), statistics.median(beside)
    benchmark.extra_info.update(
        journals=JOURNALS, alone_s=alone_s, beside_s=beside_s, extra_s=beside_s - alone_s, target_extra_s=1.0,
        without_index_extra_s=first_s - alone_s,
    )  # fmt: skip
