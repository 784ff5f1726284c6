"""1,000 bootstrap resamples of 10,000 queries, against a plain loop over resamples; the target is 1 second."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from embedcore.retrieval.metrics import METRICS
from embedcore.retrieval.resampling import intervals

pytestmark = pytest.mark.embed_harness

RESAMPLES = 1000
QUERIES = 10_000


@pytest.mark.parametrize("classes", [500, 5000])
def test_intervals(benchmark, classes):
    rng = np.random.default_rng(0)
    per_query = {name: rng.uniform(size=QUERIES) for name in METRICS}
    labels = rng.integers(0, classes, QUERIES)
    table = np.stack(list(per_query.values()), axis=1)
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def loop() -> None:
        """Compute only the micro intervals, one resample at a time."""
        draws = np.random.default_rng(0)
        means = [
            table[np.concatenate([members[c] for c in draws.integers(0, len(members), len(members))])].mean(axis=0)
            for _ in range(RESAMPLES)
        ]
        np.quantile(means, [0.025, 0.975], axis=0)

    peer, ours = [], []

    def setup() -> None:
        begin = time.perf_counter()
        loop()
        peer.append(time.perf_counter() - begin)

    def run() -> None:
        begin = time.perf_counter()
        intervals(per_query, labels, resamples=RESAMPLES)
        ours.append(time.perf_counter() - begin)

    benchmark.pedantic(run, setup=setup, rounds=5)
    benchmark.extra_info.update(
        peer="a loop over resamples (micro only)",
        ours_s=statistics.median(ours),
        peer_s=statistics.median(peer),
        ratio=statistics.median(peer) / statistics.median(ours),
        target_s=1.0,
    )
