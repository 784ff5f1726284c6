"""Indexes of runs whose embeddings are made up."""

from __future__ import annotations

from dataclasses import replace

import kept_runs
import msgspec
import numpy as np
import pytest

from embedcore.compare.indexed import MOST, index_run
from embedcore.compare.labelled_retrieval import LOSS
from embedcore.errors import UsageError
from embedcore.results.reading import read_run
from embedcore.retrieval.indexes import indexes
from embedcore.retrieval.squeeze import int8_references

CLASSES = 30
LABELS = np.repeat(np.arange(CLASSES), 6)
IS_QUERY = np.arange(len(LABELS)) % 3 == 0


def rows_of(seed, *, noise=1.0, dim=24):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((CLASSES, dim))[LABELS] + noise * rng.standard_normal((len(LABELS), dim))
    return kept_runs.unit(rows)


def run_of(folder, models, is_query=IS_QUERY, **fields):
    return read_run(kept_runs.save(folder / "run.json", models, LABELS, is_query, cache=folder, **fields))


@pytest.mark.parametrize("is_query", [None, IS_QUERY])
def test_recall_and_acc_equal_brute_force(tmp_path, is_query):
    rows = rows_of(1)
    (part,) = index_run(run_of(tmp_path, {"a.x": rows}, is_query), tmp_path)
    (model,) = part.models
    asked = np.ones(len(rows), bool) if is_query is None else is_query
    held = asked if is_query is None else ~is_query
    references = rows[held]
    nearest = {}
    for name, stored in {"exact": references, "int8": int8_references(references)}.items():
        products = rows[asked].astype(float) @ stored.astype(float).T
        if is_query is None:
            np.fill_diagonal(products, -np.inf)
        nearest[name] = products.argmax(axis=1)
    for index in indexes(references):
        if index.form == "HNSW":
            found = index.search(rows[asked], 6)
            own = np.flatnonzero(asked) if is_query is None else np.full(len(found), -2)
            nearest[index.name] = np.array(
                [next(i for i in row if i != one) for row, one in zip(found, own, strict=True)]
            )
    assert [form.name for form in model.forms] == [*nearest] == ["exact", "int8", "HNSW 16", "HNSW 64", "HNSW 256"]
    hits = {name: LABELS[held][found] == LABELS[asked] for name, found in nearest.items()}
    for form in model.forms:
        assert form.recall1 == (nearest[form.name] == nearest["exact"]).mean(), form.name
        assert form.acc == pytest.approx(hits[form.name].mean(), abs=1e-12)
        assert form.queries_per_s > 0 and form.bytes > 0
        if form.name != "exact":
            gap = float(hits[form.name].mean() - hits["exact"].mean())
            assert form.change.change == pytest.approx(gap, abs=1e-12)
            assert form.change.low <= gap <= form.change.high and 0 < form.change.p <= 1
    exact = model.forms[0]
    assert (exact.recall1, exact.change, exact.build_s, exact.bytes) == (1.0, None, 0.0, references.nbytes)
    assert "references are fewer than 9,984" in model.why_not


def test_numbers_are_the_same_every_time(tmp_path):
    run = run_of(tmp_path, {"a.x": rows_of(1), "b.x": rows_of(2, noise=2.0)})
    first, second = (index_run(run, tmp_path, ["*"]) for _ in range(2))

    def numbers(parts):
        forms = [form for part in parts for model in part.models for form in model.forms]
        return [(form.name, form.recall1, form.acc, form.bytes, form.change) for form in forms]

    assert numbers(first) == numbers(second) and len(numbers(first)) == 10


def test_the_leaders_are_indexed(tmp_path):
    tied = {f"tied{number}.x": rows_of(number, noise=1.5) for number in range(5)}
    (part,) = index_run(run_of(tmp_path, tied | {"worse.x": rows_of(9, noise=9.0)}), tmp_path)
    names = [model.result.model for model in part.models]
    assert len(names) == MOST and "worse.x" not in names
    (part,) = index_run(run_of(tmp_path, {"best.x": rows_of(1, noise=0.1), "worse.x": rows_of(9, noise=9.0)}), tmp_path)
    assert [model.result.model for model in part.models] == ["best.x"]


def test_models_are_chosen_by_name_and_glob(tmp_path):
    run, seen = run_of(tmp_path, {name: rows_of(1, noise=noise) for name, noise in (("a.x", 1), ("b.x", 5))}), []
    (part,) = index_run(run, tmp_path, ["b.*"], done=seen.append)
    assert [model.result.model for model in part.models] == seen == ["b.x"]
    with pytest.raises(UsageError, match=r"--models: no measured model of .*run.json matches 'c.x'"):
        index_run(run, tmp_path, ["c.x"])


def test_models_without_embeddings_say_why(tmp_path):
    run = run_of(tmp_path, {"a.x": rows_of(1), "b.x": rows_of(2, noise=3.0), "c.x": rows_of(3)})
    keys = [run.results[1].embeddings, run.results[1].embeddings, None]
    results = tuple(msgspec.structs.replace(each, embeddings=key) for each, key in zip(run.results, keys, strict=True))
    (part,) = index_run(replace(run, results=results), tmp_path, ["*"])
    assert "its kept embeddings give acc" in part.models[0].why and part.models[0].forms == ()
    assert part.models[1].why == "" and part.models[1].forms
    assert "measured without --embed-keep-embeddings" in part.models[2].why
    (part,) = index_run(replace(run, dataset={"name": "old"}), tmp_path, ["*"])
    assert all("does not record the labels" in model.why for model in part.models)


def test_the_fastest_index_excludes_a_loss(tmp_path):
    (part,) = index_run(run_of(tmp_path, {"a.x": rows_of(1)}), tmp_path)
    exact, *others = part.models[0].forms
    speeds = [replace(form, queries_per_s=10.0 * (number + 1)) for number, form in enumerate(others)]
    lossy = replace(speeds[-1], change=speeds[-1].change._replace(low=-2 * LOSS))
    safe = [replace(form, change=form.change._replace(low=-LOSS / 2)) for form in speeds[:-1]]
    model = replace(part.models[0], forms=(replace(exact, queries_per_s=5.0), *safe, lossy))
    assert model.fastest == safe[-1]
    assert replace(model, forms=(replace(exact, queries_per_s=1e9), *safe, lossy)).fastest is None
