from __future__ import annotations

import io
from types import SimpleNamespace

import galleries
import numpy as np
import pytest
from PIL import Image

from embedcore.images.load_dataset import load_dataset
from embedcore.images.thumbnails import EDGE, thumbnails
from embedcore.report.gallery.gallery import dataset_of, gallery_of
from embedcore.results.leaderboard import boards_of
from embedcore.results.neighbours import FOLDER, NeighbourStore, key


@pytest.fixture
def made():
    run, labels, found = galleries.a_run()
    return boards_of(run, {})[0], galleries.a_gallery(labels, found)


def nothing():
    raise AssertionError("without neighbours no dataset is loaded")


def test_a_saved_run_finds_its_neighbours_in_the_cache_and_needs_its_dataset(tmp_path, made):
    board, gallery = made
    labels = gallery.labels
    places = np.arange(len(labels.names))
    dataset = SimpleNamespace(
        fingerprint=galleries.FINGERPRINT,
        names=labels.names,
        titles=labels.classes,
        labels=labels.class_of,
        is_query=np.isin(places, labels.queries),
        is_reference=np.isin(places, labels.references),
    )
    another = SimpleNamespace(**{**vars(dataset), "fingerprint": "another"})
    assert gallery_of(board, tmp_path, nothing) is None
    results = {row.result.model: row.result for row in board.by_acc}
    for model, found in gallery.found.items():
        NeighbourStore(tmp_path / FOLDER, "run").keep(key(results[model], galleries.FINGERPRINT), found)
    assert gallery_of(board, tmp_path, lambda: None) is None
    assert gallery_of(board, tmp_path, lambda: another) is None
    again = gallery_of(board, tmp_path, lambda: dataset)
    assert again.found.keys() == results.keys() and again.labels.names == labels.names
    np.testing.assert_array_equal(again.labels.queries, labels.queries)
    np.testing.assert_array_equal(again.labels.references, labels.references)
    for model, found in gallery.found.items():
        np.testing.assert_array_equal(again.found[model].indices, found.indices)
        np.testing.assert_array_equal(again.found[model].similarities, found.similarities)


@pytest.fixture
def folder(tmp_path):
    for label, shade in (("red", (220, 0, 0)), ("blue", (0, 0, 220))):
        for number in range(2):
            path = tmp_path / "images" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (300 + number, 100), shade).save(path)
    return tmp_path / "images"


def test_thumbnails_are_small_and_those_that_cannot_be_made_are_left_out(folder):
    dataset = load_dataset(folder)
    (folder / "red" / "0.png").unlink()
    made = dict(thumbnails(dataset, [3, 2, 1, 0]))
    names = [dataset.names[place] for place in made]
    assert names == ["red/1.png", "blue/1.png", "blue/0.png"]
    with Image.open(io.BytesIO(made[0])) as picture:
        assert (picture.format, max(picture.size)) == ("WEBP", EDGE)
        assert picture.convert("RGB").getpixel((40, 10))[2] > 180


def test_the_dataset_that_settings_name_is_loaded_but_nothing_is_fetched_for_them(folder, tmp_path, caplog):
    settings = {"dataset": str(folder), "split": "auto", "max_classes": None, "seed": 0, "roster": "all"}
    dataset = dataset_of(settings, tmp_path / "cache")
    assert dataset.fingerprint == load_dataset(folder).fingerprint
    assert dataset_of({"dataset": str(folder / "gone")}, tmp_path) is None and "not available" in caplog.text
    assert dataset_of({"dataset": "hfds/somebody/images"}, tmp_path) is None
    assert dataset_of({}, tmp_path) is None
