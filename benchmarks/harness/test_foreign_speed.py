"""An empty session of an unrelated project, against the same session without the plugin."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.embed_harness

PAIRS = 11


def test_foreign_session_over_one_without_the_plugin(benchmark, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    # Keep compiled modules, as an ordinary session does.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    def seconds(*arguments: str) -> float:
        begin = time.perf_counter()
        everything = [*command, *arguments]
        subprocess.run(everything, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    ours, peer = [], []

    def pair():
        ours.append(seconds())
        peer.append(seconds("-p", "no:embedcore"))

    benchmark.pedantic(pair, rounds=PAIRS, warmup_rounds=1)
    ours_s, peer_s = statistics.median(ours), statistics.median(peer)
    benchmark.extra_info.update(
        peer="-p no:embedcore", ours_s=ours_s, peer_s=peer_s, extra_s=ours_s - peer_s, target_extra_s=0.02
    )
