"""The search on a device, run on the CPU in its place."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from embedcore.retrieval import accelerator
from embedcore.retrieval.accelerator import search_on_device
from embedcore.retrieval.search import nearest


def float64_order(queries: np.ndarray, references: np.ndarray, k: int) -> np.ndarray:
    """Plain float64 brute force, for data without near ties."""
    products = queries.astype(np.float64) @ references.astype(np.float64).T
    return np.argsort(-products, axis=1, kind="stable")[:, :k]


@pytest.fixture
def calls(monkeypatch):
    """The number of rows that each slow path has processed."""
    rows = {"dense_block": 0, "dense_nearest": 0, "best_of_candidates": 0, "settled": 0}

    def counted(name, real, *args):
        rows[name] += len(args[2 if name == "settled" else 0])
        return real(*args)

    for name in rows:
        monkeypatch.setattr(accelerator, name, functools.partial(counted, name, getattr(accelerator, name)))
    return rows


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("out of memory")])
def test_memory_that_runs_out_halves_the_tile(embeddings, monkeypatch, error):
    rows = embeddings(1000, 24, centres=30)
    queries = embeddings(700, 24, seed=1)
    real, fitted = accelerator._multiply, []

    def small_only(a, b):
        # The first block of queries goes through in tiles of 256; later there is less memory.
        if len(a) * len(b) > (256 * 256 if len(fitted) < 5 else 128 * 128):
            raise error
        fitted.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(accelerator, "_multiply", small_only)
    indices, _ = search_on_device(queries, rows, 7, "cpu", 512)
    assert (indices == float64_order(queries, rows, 7)).all()
    assert fitted[:4] == [(256, 256)] * 3 + [(256, 1000 - 3 * 256)]
    assert fitted[5][0] < 256
    # Only the tile during which memory ran out again, and undecided rows, are computed twice.
    assert sum(a * b for a, b in fitted) < 1.1 * len(queries) * len(rows) + 256 * 256


def test_memory_that_never_suffices_is_an_error(embeddings, monkeypatch):
    tried = []

    def never(a, b):
        tried.append(len(a))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(accelerator, "_multiply", never)
    rows = embeddings(600, 8)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        search_on_device(rows, rows, 3, "cpu", 512)
    assert tried == [512, 256, 128, 64, 32, 16]


def test_other_errors_are_raised_at_once(embeddings, monkeypatch):
    tried = []

    def broken(a, b):
        tried.append(len(a))
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(accelerator, "_multiply", broken)
    rows = embeddings(300, 8)
    with pytest.raises(RuntimeError, match="assert triggered"):
        search_on_device(rows, rows, 3, "cpu")
    assert len(tried) == 1


@pytest.mark.parametrize("cosine", [0.9, 0.99, 0.999])
def test_narrow_cones_are_not_searched_in_float64(embeddings, calls, cosine):
    rng = np.random.default_rng(0)
    axis = np.eye(1, 256)
    spread = rng.standard_normal((3000, 256)) / 16
    rows = np.sqrt(cosine) * axis + np.sqrt(1 - cosine) * spread
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    assert (rows[:100].astype(float) @ rows.T.astype(float)).min() > cosine - 0.1
    indices, similarities = search_on_device(rows, rows, 10, "cpu", 1024)
    assert (indices == float64_order(rows, rows, 10)).all()
    own = np.einsum("ij,ikj->ik", rows.astype(np.float64), rows[indices].astype(np.float64))
    np.testing.assert_allclose(similarities, own, rtol=0, atol=1e-14)
    assert calls["dense_block"] + calls["dense_nearest"] <= 30


def test_the_order_is_decided_on_the_device(embeddings, calls):
    rows = embeddings(2000, 32)
    search_on_device(rows, rows, 5, "cpu", 512)
    assert calls == {"dense_block": 0, "dense_nearest": 0, "best_of_candidates": 0, "settled": 2000}


@pytest.mark.parametrize("spread", [1.0, 1e-5])
def test_without_float64_or_room_on_the_device_threads_decide(embeddings, calls, monkeypatch, spread):
    # None: a device without float64 (MPS), or without room for the references.
    monkeypatch.setattr(accelerator._Search, "_placed", lambda *_: None)
    rows = embeddings(2000, 32, spread=spread, centres=0 if spread == 1 else 1)
    indices, similarities = search_on_device(rows, rows, 5, "cpu", 512)
    plain = nearest(rows, rows, 5)
    assert (indices == plain.indices).all()
    np.testing.assert_allclose(similarities, plain.similarities, rtol=0, atol=1e-15)
    assert calls["settled"] == calls["dense_block"] == 0
    assert calls["best_of_candidates"] + calls["dense_nearest"] == 2000


def test_references_that_do_not_fit_stay_where_they_are():
    class Full:
        def to(self, device):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    class Broken:
        def to(self, device):
            raise RuntimeError("invalid device ordinal")

    search = accelerator._Search.__new__(accelerator._Search)
    search.device = torch.device("cpu")
    assert search._placed(Full()) is None
    with pytest.raises(RuntimeError, match="invalid device"):
        search._placed(Broken())


def test_ties_and_near_ties_are_in_the_order_of_the_plain_search():
    # Permutations of one row: similarities to a constant query equal up to the last bits, many to the last bit.
    rng = np.random.default_rng(1)
    row = rng.standard_normal(24) * 2.0 ** rng.integers(-20, 1, 24)
    rows = np.stack([rng.permutation(row) for _ in range(400)]).astype(np.float32)
    rows /= np.float32(np.linalg.norm(row))
    query = np.full((3, 24), 24**-0.5, dtype=np.float32)
    for k in (4, 300):
        indices, similarities = search_on_device(query, rows, k, "cpu", 64)
        plain = nearest(query, rows, k)
        assert (indices == plain.indices).all()
        assert (similarities == plain.similarities).all()
