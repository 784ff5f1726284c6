"""Indexes against brute force, and against those that faiss's own factory makes."""

from __future__ import annotations

import sys

import faiss
import numpy as np
import pytest
import torch

from embedcore.errors import UsageError
from embedcore.retrieval import indexes as module
from embedcore.retrieval.indexes import (
    FEWEST,
    Index,
    code_bytes,
    exact_search,
    found_by,
    import_faiss,
    indexes,
    one_thread,
    queries_per_s,
    recalled,
    why_not,
)
from embedcore.retrieval.search import nearest, nearest_except
from embedcore.retrieval.squeeze import int8_references


def from_factory(description, references, construction=None):
    """An index that faiss's factory makes, built on one thread."""
    index = faiss.index_factory(references.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    if construction:
        index.hnsw.efConstruction = construction
    with one_thread():
        index.train(references)
        index.add(references)
    return index


def search(index, queries, k):
    return np.asarray(index.search(queries, k)[1])


@pytest.fixture(scope="module")
def many():
    """Queries and references, in clusters."""
    rng = np.random.default_rng(0)
    rows = 0.7 * rng.standard_normal((1424, 32)) + rng.standard_normal((200, 32))[rng.integers(0, 200, 1424)]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows[:200], rows[200:]


@pytest.fixture(scope="module")
def built(many):
    """Indexes by name; IVF-PQ from fewer references than faiss asks for, which train in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEWEST", 1000)
        return {index.name: index for index in indexes(many[1])}


def test_every_form_has_its_parameters(built):
    hnsw = {"M": 32, "efConstruction": 40}
    assert {name: index.parameters for name, index in built.items()} == {
        "int8": {},
        **{f"HNSW {ef}": {**hnsw, "efSearch": ef} for ef in (16, 64, 256)},
        **{f"IVF-PQ {probes}": {"nlist": 35, "m": 8, "nprobe": probes} for probes in (1, 8, 32)},
    }
    assert all(index.build_s > 0 for index in built.values())


def test_indexes_are_those_of_the_factory_of_faiss(many, built):
    """In any order of the searches, although the searches of a form share its index."""
    queries, references = many
    descriptions = {"int8": ("SQ8", None), "HNSW": ("HNSW32", 40), "IVF-PQ": ("IVF35,PQ8np", None)}
    for form, (description, construction) in descriptions.items():
        theirs = from_factory(description, references, construction)
        for index in reversed([index for index in built.values() if index.form == form]):
            for parameter in ("efSearch", "nprobe"):
                if parameter in index.parameters:
                    faiss.ParameterSpace().set_index_parameter(theirs, parameter, index.parameters[parameter])
            assert (index.search(queries, 3) == search(theirs, queries, 3)).all(), index.name
            assert index.bytes == faiss.serialize_index(theirs).size


def test_int8_finds_the_nearest_of_the_decoded_references(many, built):
    queries, references = many
    products = queries.astype(float) @ int8_references(references).astype(float).T
    assert (built["int8"].search(queries, 1)[:, 0] == products.argmax(axis=1)).mean() > 0.98


def test_a_wider_search_recalls_more(many, built):
    queries, references = many
    best = found_by(exact_search(references), queries, None, 1)[:, 0]
    assert (best == (queries.astype(float) @ references.astype(float).T).argmax(axis=1)).all()
    recalls = {
        name: recalled(queries, references, index.search(queries, 5)[:, 0], best) for name, index in built.items()
    }
    means = {name: recall.mean() for name, recall in recalls.items()}
    assert means["HNSW 16"] <= means["HNSW 64"] <= means["HNSW 256"] and means["HNSW 256"] > 0.95
    assert means["IVF-PQ 1"] < means["IVF-PQ 8"] <= means["IVF-PQ 32"] < means["int8"]


@pytest.mark.parametrize("k", [1, 3, 50])
def test_a_query_does_not_find_itself(embeddings, k):
    """Also among copies of itself, of which there are more than neighbours are asked for."""
    rows = embeddings(40, 12)
    rows = np.concatenate([rows, rows[:5], np.repeat(rows[7:8], 6, axis=0)])
    itself = np.arange(len(rows))
    expected = nearest(rows, None, k).indices
    assert (found_by(exact_search(rows), rows, itself, k) == expected).all()
    some = itself[::3]
    expected = nearest_except(rows[some], rows, some, k).indices
    assert (found_by(exact_search(rows), rows[some], some, k) == expected).all()
    for index in indexes(rows):
        found = found_by(index, rows, itself, k)
        assert found.shape == (len(rows), k) and not (found == itself[:, None]).any(), index.name


def test_what_an_index_does_not_find_is_not_recalled(embeddings):
    rows = embeddings(6, 4)
    best = nearest(rows, None, 1).indices[:3, 0]
    worst = nearest(rows, None, 5).indices[2, 4]
    found = np.array([[0, best[0], -1], [1, -1, -1], [2, worst, best[2]]])
    index = Index("few", {}, 0, 0.0, lambda queries, k: found[:, :k])
    first = found_by(index, rows[:3], np.arange(3), 1)[:, 0]
    assert first.tolist() == [best[0], -1, worst]
    assert recalled(rows[:3], rows, first, best).tolist() == [True, False, False]
    assert found_by(index, rows[:3], None, 2).tolist() == found[:, :2].tolist()


def test_a_copy_of_the_nearest_is_as_good(embeddings):
    references = embeddings(20, 8)
    references = np.concatenate([references, references[[4]]])
    queries = embeddings(3, 8, seed=1)
    queries[0] = references[4]
    best = nearest(queries, references, 1).indices[:, 0]
    assert best[0] == 4 and recalled(queries, references, np.array([20, *best[1:]]), best).all()
    other = (best + 1) % 20
    assert recalled(queries, references, other, best).tolist() == [False] * 3


def test_too_few_references_and_odd_widths_are_left_out(embeddings):
    assert why_not(np.zeros((FEWEST, 1280), np.float32)) == ""
    assert why_not(np.zeros((FEWEST - 1, 1280), np.float32)).startswith("9,983 references are fewer than 9,984")
    assert why_not(np.zeros((FEWEST, 90), np.float32)).startswith("90 dimensions cannot be divided")
    assert [index.form for index in indexes(embeddings(50, 32))] == ["int8", *["HNSW"] * 3]
    assert [code_bytes(dim) for dim in (2048, 768, 192, 40, 24, 36)] == [64, 64, 32, 8, 0, 0]


def test_speed_is_measured_on_one_thread(embeddings, monkeypatch):
    seen = []

    def search(queries, k):
        seen.append((len(queries), k, torch.get_num_threads(), faiss.omp_get_max_threads()))
        return np.zeros((len(queries), k), np.int64)

    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    rows = embeddings(100, 8)
    assert queries_per_s(Index("", {}, 0, 0.0, search), rows, 7) > 0
    assert seen == [(16, 7, 1, 1), *[(100, 7, 1, 1)] * 3]
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == before
    monkeypatch.setattr(module, "_PASS_S", 1e-9)  # a slow search is timed on some queries only
    assert queries_per_s(Index("", {}, 0, 0.0, search), rows, 7) > 0
    assert {count for count, *_ in seen[4:]} == {16, 17}


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"needs faiss: pip install 'embedcore\[index\]'"):
        import_faiss()
