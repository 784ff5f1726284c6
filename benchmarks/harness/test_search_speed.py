"""``nearest`` against faiss ``IndexFlatIP``, and against its limit: the plain float32 product of all pairs.

Alternating in one process, on rows without structure and on classes of 20 in a narrow cone, as embeddings tend to be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import faiss
import numpy as np
import pytest
import torch

from embedcore.retrieval.search import nearest

pytestmark = pytest.mark.embed_harness

K = 20
ROUNDS = 3


def make_rows(n: int, dim: int, kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim), dtype=np.float32)
    if kind == "classes":
        centres = np.random.default_rng(99).standard_normal((2000, dim), dtype=np.float32)
        rows += centres[rng.integers(0, len(centres), n)] + np.float32(1.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def plain_product(queries: np.ndarray, references: np.ndarray) -> None:
    """All products, in tiles that overwrite one another."""
    left, right = torch.from_numpy(queries), torch.from_numpy(references)
    tile = torch.empty(4096 * 4096)
    for i in range(0, len(left), 4096):
        for j in range(0, len(right), 4096):
            a, b = left[i : i + 4096], right[j : j + 4096]
            torch.mm(a, b.T, out=tile[: len(a) * len(b)].view(len(a), len(b)))


def compare(benchmark, target: float, ours: Callable, peer: Callable, limit: Callable) -> None:
    """Time the three alternately, and keep the ratios of their medians."""
    seconds: dict[str, list[float]] = {"ours": [], "peer": [], "limit": []}

    def timed(name: str, call: Callable) -> None:
        begin = time.perf_counter()
        call()
        seconds[name].append(time.perf_counter() - begin)

    def setup() -> None:
        timed("peer", peer)
        timed("limit", limit)

    benchmark.pedantic(lambda: timed("ours", ours), setup=setup, rounds=ROUNDS, warmup_rounds=0)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    benchmark.extra_info.update(
        peer="faiss IndexFlatIP",
        limit="plain float32 product of all pairs",
        ours_s=median["ours"],
        peer_s=median["peer"],
        limit_s=median["limit"],
        ratio=median["peer"] / median["ours"],
        ratio_to_limit=median["limit"] / median["ours"],
        target=target,
    )


def check_agreement(found: np.ndarray, theirs: np.ndarray) -> None:
    """Assert that both found the same; float32 may order near ties differently."""
    assert np.mean(found == theirs) > 0.995


@pytest.mark.parametrize("kind", ["unstructured", "classes"])
def test_queries_in_references(benchmark, kind):
    queries, references = make_rows(10_000, 512, kind, 0), make_rows(20_000, 512, kind, 1)
    index = faiss.IndexFlatIP(512)
    index.add(references)
    check_agreement(nearest(queries[:4000], references, K).indices, index.search(queries[:4000], K)[1])
    compare(
        benchmark,
        1.0,
        ours=lambda: nearest(queries, references, K),
        peer=lambda: index.search(queries, K),
        limit=lambda: plain_product(queries, references),
    )


@pytest.mark.parametrize("kind", ["unstructured", "classes"])
def test_leave_one_out(benchmark, kind):
    rows = make_rows(40_000, 1024, kind, 0)
    index = faiss.IndexFlatIP(1024)
    index.add(rows)
    check_agreement(nearest(rows[:500], rows, K + 1).indices, index.search(rows[:500], K + 1)[1])
    compare(
        benchmark,
        1.5,
        ours=lambda: nearest(rows, None, K),
        peer=lambda: index.search(rows, K + 1),  # itself is among them
        limit=lambda: plain_product(rows, rows),
    )
