"""Squeezed embeddings and ensembles of runs whose embeddings are made up."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import kept_runs
import msgspec
import numpy as np
import pytest

from embedcore.compare.compatibility import halves
from embedcore.compare.labelled_retrieval import LOSS
from embedcore.compare.squeezed import squeeze_run
from embedcore.errors import UsageError
from embedcore.results.reading import read_run

CLASSES = 30
LABELS = np.repeat(np.arange(CLASSES), 6)
IS_QUERY = np.arange(len(LABELS)) % 3 == 0


def rows_of(seed, *, noise=1.0, dim=24, good=None):
    """Embeddings of the images; classes below `good` (default: all) are together, the others are noise."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((CLASSES, dim))[LABELS] + noise * rng.standard_normal((len(LABELS), dim))
    if good is not None:
        rows[~np.isin(LABELS, good)] = rng.standard_normal((int((~np.isin(LABELS, good)).sum()), dim))
    return kept_runs.unit(rows)


def run_of(folder, models, is_query=IS_QUERY, **fields):
    return read_run(kept_runs.save(folder / "run.json", models, LABELS, is_query, cache=folder, **fields))


def by_name(model):
    return {form.name: form for form in model.forms}


def acc_of(products, is_query, rows=slice(None)):
    """The share of queries, those at `rows`, whose first nearest reference has their class; `products` [n, n]."""
    products = products.astype(float)
    if is_query is None:
        np.fill_diagonal(products, -np.inf)
        hits = LABELS[products.argmax(axis=1)] == LABELS
    else:
        found = products[np.ix_(is_query, ~is_query)].argmax(axis=1)
        hits = LABELS[~is_query][found] == LABELS[is_query]
    return hits[rows].mean()


@pytest.mark.parametrize("is_query", [None, IS_QUERY])
def test_scores_of_forms_equal_brute_force(tmp_path, is_query):
    rows = rows_of(1)
    (part,) = squeeze_run(run_of(tmp_path, {"a.x": rows}, is_query), tmp_path)
    forms = by_name(part.models[0])
    references = rows if is_query is None else rows[~is_query]
    wide, mean = rows.astype(float), references.mean(axis=0, dtype=float)
    centred = (wide - mean) / np.linalg.norm(wide - mean, axis=1, keepdims=True)
    low, span = references.min(axis=0), np.ptp(references, axis=0)
    stored = low + (np.floor(np.clip((rows - low) / span, 0, 1) * np.float32(255)) + 0.5) / 255 * span
    bits, centred_bits = np.where(rows > 0, 1, -1), np.where(rows > mean.astype(np.float32), 1, -1)
    expected = {
        "float32": wide @ wide.T,
        "centred": centred @ centred.T,
        "int8": wide @ stored.astype(float).T,
        "binary": bits @ bits.T,
        "binary centred": centred_bits @ centred_bits.T,
    }
    for name, products in expected.items():
        assert forms[name].scores["acc"] == pytest.approx(acc_of(products, is_query), abs=1e-12), name
    assert forms["float32"].change is None and part.ensembles == ()
    for name, form in forms.items():
        if name != "float32":
            gap = form.scores["acc"] - forms["float32"].scores["acc"]
            assert form.change.change == pytest.approx(gap, abs=1e-12)
            assert form.change.low <= gap <= form.change.high and 0 < form.change.p <= 1


def test_a_loss_and_a_gain_are_significant(tmp_path):
    rng = np.random.default_rng(0)
    signal = rows_of(1, noise=0.3)
    hidden = kept_runs.unit(np.concatenate([4 * rng.standard_normal((len(LABELS), 2)) + 4, signal], axis=1))
    positive = kept_runs.unit(np.abs(rows_of(2, noise=0.3)))  # all signs are equal
    (part,) = squeeze_run(run_of(tmp_path, {"hidden.x": hidden, "positive.x": positive}), tmp_path)
    first, second = (by_name(model) for model in part.models)
    assert first["whitened"].change.low > 0.1 and first["whitened"].change.p < 1e-3
    assert second["binary"].change.high < -0.1 and second["binary"].change.p < 1e-3
    assert second["binary centred"].scores["acc"] > second["binary"].scores["acc"] + 0.3


def test_the_smallest_form_excludes_a_loss(tmp_path):
    (part,) = squeeze_run(run_of(tmp_path, {"easy.x": rows_of(1, noise=0.1), "hard.x": rows_of(2)}), tmp_path)
    easy, hard = part.models
    assert easy.smallest.name == "binary" and by_name(easy)["binary"].change.low >= -LOSS
    assert hard.smallest is None or hard.smallest.change.low >= -LOSS
    assert by_name(hard)["binary"].change.low < -LOSS


MODELS = {
    "a.x": rows_of(1, noise=0.8),
    "b.x": rows_of(2, noise=0.9, good=np.arange(0, CLASSES, 2)),
    "c.x": rows_of(3, noise=0.9, good=np.arange(1, CLASSES, 2)),
    "d.x": rows_of(4, noise=3.0, dim=40),
}


def test_halves_of_classes_are_disjoint():
    second = halves(LABELS)
    assert not {*LABELS[second]} & {*LABELS[~second]} and second.sum() == len(LABELS) / 2


@pytest.mark.parametrize("is_query", [None, IS_QUERY])
def test_ensembles_equal_an_exhaustive_search(tmp_path, is_query):
    speeds = {"images_per_s": {"forward": 50.0}}
    (part,) = squeeze_run(run_of(tmp_path, MODELS, is_query, **speeds), tmp_path)
    products = {name: rows.astype(float) @ rows.T.astype(float) for name, rows in MODELS.items()}
    second = halves(LABELS if is_query is None else LABELS[is_query])

    def acc(names, half):
        return acc_of(np.mean([products[name] for name in names], axis=0), is_query, half)

    single, pair, triple = part.ensembles
    assert part.classes == (15, 15)
    assert acc(single.models, ~second) == max(acc([name], ~second) for name in MODELS)
    pairs = [each for each in itertools.combinations(MODELS, 2) if single.models[0] in each]
    assert acc(pair.models, ~second) == pytest.approx(max(acc(each, ~second) for each in pairs))
    triples = [each for each in itertools.combinations(MODELS, 3) if {*pair.models} <= {*each}]
    assert acc(triple.models, ~second) == pytest.approx(max(acc(each, ~second) for each in triples))
    for found in part.ensembles:
        assert found.chosen_acc == pytest.approx(acc(found.models, ~second), abs=1e-12)
        assert found.acc == pytest.approx(acc(found.models, second), abs=1e-12)
        assert found.bytes == sum(4 * MODELS[name].shape[1] for name in found.models)
        assert found.seconds == pytest.approx(len(found.models) / 50)
    assert single.change is None
    assert pair.change.change == pytest.approx(pair.acc - single.acc) and pair.change.p <= 1


def test_queries_that_are_judged_do_not_choose(tmp_path):
    second = halves(LABELS[IS_QUERY])
    places = np.flatnonzero(IS_QUERY)[second]
    changed = {name: rows.copy() for name, rows in MODELS.items()}
    for number, rows in enumerate(changed.values()):
        rows[places] = rows_of(100 + number, dim=rows.shape[1])[: len(places)]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (one,) = squeeze_run(run_of(tmp_path / "one", MODELS), tmp_path / "one")
    (other,) = squeeze_run(run_of(tmp_path / "other", changed), tmp_path / "other")
    assert [each.models for each in one.ensembles] == [each.models for each in other.ensembles]
    assert [each.chosen_acc for each in one.ensembles] == [each.chosen_acc for each in other.ensembles]
    assert all(b.acc < a.acc for a, b in zip(one.ensembles, other.ensembles, strict=True))


def test_an_ensemble_without_all_speeds_has_no_time(tmp_path):
    (part,) = squeeze_run(run_of(tmp_path, MODELS, images_per_s={}), tmp_path)
    assert [each.seconds for each in part.ensembles] == [None, None, None]


def test_models_are_chosen_by_name_and_glob(tmp_path):
    run, seen = run_of(tmp_path, MODELS), []
    (part,) = squeeze_run(run, tmp_path, ["d.x", "[ab].*"], seen.append)
    assert [model.result.model for model in part.models] == seen == ["a.x", "b.x", "d.x"]
    message = r"--models: no measured model of .*run.json matches 'a.y' \(did you mean 'a.x'"
    with pytest.raises(UsageError, match=message):
        squeeze_run(run, tmp_path, ["a.y"])


def test_models_without_embeddings_say_why(tmp_path):
    run = run_of(tmp_path, {"a.x": rows_of(1), "b.x": rows_of(2, noise=0.3), "c.x": rows_of(3)})
    swapped = [run.results[1].embeddings, run.results[0].embeddings, None]

    results = tuple(
        msgspec.structs.replace(result, embeddings=key) for result, key in zip(run.results, swapped, strict=True)
    )

    (part,) = squeeze_run(replace(run, results=results), tmp_path)
    assert "its kept embeddings give acc" in part.models[0].why and part.models[0].forms == ()
    assert "measured without --embed-keep-embeddings" in part.models[2].why
    shutil.rmtree(tmp_path / "embeddings")
    (part,) = squeeze_run(run, tmp_path)
    assert "no longer in" in part.models[0].why
    (part,) = squeeze_run(replace(run, dataset={"name": "old"}), tmp_path)
    assert all("does not record the labels" in model.why for model in part.models)
