from __future__ import annotations

import numpy as np
import pytest

from embedcore.results.neighbours import BEST, FOLDER, KeptNeighbours, NeighbourStore, chosen, find, key, keys_of
from embedcore.results.result import Result

FOUND = KeptNeighbours.make(np.arange(12).reshape(2, 6), np.linspace(1, 0, 12).reshape(2, 6))


def results_of(result_of, count, families=3):
    made = [
        result_of(f"m{n}.x", acc=1 - n / 100, acc5=0.1, family=f"f{n % families}", dataset="d") for n in range(count)
    ]
    return [*made, Result.make("gone.x", family="g", status="no-weights", reason="none")]


def test_five_columns_are_kept_and_read_back(tmp_path, result_of):
    results = results_of(result_of, 2)
    store = NeighbourStore(tmp_path / FOLDER, "20260101T000000-1")
    store.keep(key(results[0], "d"), FOUND)
    found = find(tmp_path, keys_of(results, "d"))
    assert list(found) == ["m0.x"]
    assert found["m0.x"].indices.tolist() == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]
    assert found["m0.x"].similarities == pytest.approx(FOUND.similarities)


def test_another_result_of_the_model_does_not_find_them(tmp_path, result_of):
    one, other = result_of(verdicts="a", dataset="d"), result_of(verdicts="b", dataset="d")
    NeighbourStore(tmp_path / FOLDER, "run").keep(key(one, "d"), FOUND)
    assert find(tmp_path, keys_of([one], "d")) and not find(tmp_path, keys_of([other], "d"))
    assert not find(tmp_path, keys_of([one], "another"))


def test_leaders_best_and_requested_models_are_chosen(result_of):
    results = results_of(result_of, 40, families=30)
    models = [f"m{n}.x" for n in range(30)]  # 20 are the best, the next ten lead their family
    assert chosen(results) == models
    assert chosen(reversed(results), {"m35.x", "gone.x"}) == [*models, "m35.x"]


def test_pruning_during_a_run_equals_pruning_at_the_end(tmp_path, result_of):
    store, results = NeighbourStore(tmp_path, "run"), results_of(result_of, BEST + 15)
    order = np.random.default_rng(0).permutation(len(results))
    other = NeighbourStore(tmp_path, "other")
    for place, number in enumerate(order):
        if results[number].ok:
            for each in (store, other):
                each.keep(key(results[number], "d"), FOUND)
        store.prune([results[n] for n in order[: place + 1]], {"m30.x"})
    left = {model for model, k in keys_of(results, "d").items() if store.path(k).exists()}
    assert left == set(chosen(results, {"m30.x"})) and len(left) == BEST + 1
    assert len(list(tmp_path.glob("other.*"))) == BEST + 15


def test_nothing_is_ranked_while_there_are_few_files(tmp_path, result_of):
    store, results = NeighbourStore(tmp_path, "run"), results_of(result_of, BEST + 15)
    for result in filter(lambda result: result.ok, results):
        store.keep(key(result, "d"), FOUND)
    there = len(list(tmp_path.glob("*.npz")))

    def unasked():
        raise AssertionError("asked for")
        yield

    store.prune(unasked(), spare=there)
    store.prune(results, spare=there - 1)
    assert len(list(tmp_path.glob("*.npz"))) < there


@pytest.mark.parametrize("spoil", [lambda content: content[:-30], lambda content: b"", lambda content: b"PK" + content])
def test_a_damaged_file_is_skipped_with_a_warning(tmp_path, result_of, caplog, spoil):
    result = result_of(dataset="d")
    store = NeighbourStore(tmp_path / FOLDER, "run")
    store.keep(key(result, "d"), FOUND)
    path = store.path(key(result, "d"))
    path.write_bytes(spoil(path.read_bytes()))
    assert find(tmp_path, keys_of([result], "d")) == {}
    assert "damaged" in caplog.text


def test_invalid_neighbours_are_refused():
    with pytest.raises(ValueError, match="must be integers and floats"):
        KeptNeighbours.make(np.zeros((2, 5)), np.zeros((2, 5)))
