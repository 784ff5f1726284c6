from __future__ import annotations

import dataclasses
import io

import galleries
import numpy as np
import pytest
from PIL import Image

from embedcore.images.dataset import load_dataset
from embedcore.images.thumbnails import EDGE, thumbnails
from embedcore.report.gallery.gallery import ShownGallery, dataset_of, gallery_of, saved_gallery, shown
from embedcore.report.gallery.gallery_file import read, read_folders, written
from embedcore.results.leaderboard import boards_of
from embedcore.results.neighbours import FOLDER, NeighbourStore, key


@pytest.fixture
def made():
    run, labels, found = galleries.a_run()
    return boards_of(run, {})[0], galleries.a_gallery(run, labels, found)


def nothing():
    raise AssertionError("no dataset is needed")


def test_a_file_gives_the_album_back(tmp_path, made):
    board, gallery = made
    whole = shown(board, gallery)
    (tmp_path / "neighbours.npz").write_bytes(written(whole))
    again = read(tmp_path / "neighbours.npz")
    assert shown(board, again) is not None and shown(board, again).pictures == whole.pictures
    assert again.labels.names == list(gallery.labels.names) and again.keys == dict(gallery.keys)
    for model, found in gallery.found.items():
        np.testing.assert_array_equal(again.found[model].indices, found.indices)
        np.testing.assert_array_equal(again.found[model].similarities, found.similarities)


def test_a_saved_run_finds_its_neighbours_in_the_file_and_in_the_cache(tmp_path, made):
    board, gallery = made
    file = tmp_path / "neighbours.npz"
    file.write_bytes(written(shown(board, gallery)))
    results = {row.result.model: row.result for row in board.by_acc}
    assert saved_gallery(board, tmp_path, [read(file)], nothing).found.keys() == results.keys()
    assert saved_gallery(board, tmp_path, [], nothing) is None
    for model, found in gallery.found.items():
        NeighbourStore(tmp_path / FOLDER, "run").keep(key(results[model], galleries.FINGERPRINT), found)
    assert saved_gallery(board, tmp_path, [], lambda: None) is None  # pictures of nothing
    assert saved_gallery(board, tmp_path, [read(file)], nothing).found.keys() == results.keys()


def test_files_of_parts_of_a_run_are_joined(tmp_path, made):
    board, gallery = made
    models = list(gallery.found)
    for number, some in enumerate((models[:2], models[2:])):
        of = {model: gallery.found[model] for model in some}
        content = written(ShownGallery(dataclasses.replace(gallery, found=of), None, {number: b"x"}))
        (tmp_path / f"neighbours{number}.npz").write_bytes(content)
    joined = saved_gallery(board, tmp_path, read_folders([tmp_path]), lambda: None)
    assert joined.found.keys() == set(models)
    assert dict(joined.pictures(range(3))) == {0: b"x", 1: b"x"}


def test_neighbours_of_other_embeddings_or_another_dataset_are_not_shown(tmp_path, made):
    board, gallery = made
    file = tmp_path / "neighbours.npz"
    file.write_bytes(
        written(ShownGallery(dataclasses.replace(gallery, keys=dict.fromkeys(gallery.keys, "0")), None, {}))
    )
    assert saved_gallery(board, tmp_path, [read(file)], nothing) is None
    file.write_bytes(written(ShownGallery(dataclasses.replace(gallery, fingerprint="another"), None, {})))
    assert saved_gallery(board, tmp_path, [read(file)], nothing) is None


@pytest.mark.parametrize("change", ["labels", "queries", "places", "lengths", "about"])
def test_a_file_whose_numbers_do_not_fit_is_passed_over(tmp_path, made, change, caplog):
    board, gallery = made
    with np.load(io.BytesIO(written(shown(board, gallery)))) as arrays:
        changed = dict(arrays)
    changed[change] = changed[change] + np.asarray(200, changed[change].dtype)
    file = tmp_path / "neighbours.npz"
    np.savez(file, **changed)
    assert read(file) is None and "skipped" in caplog.text
    file.write_bytes(b"no archive")
    assert read(file) is None
    assert read(tmp_path / "nothing.npz") is None


def test_of_a_large_dataset_the_file_has_the_best_models(tmp_path, made, monkeypatch):
    board, gallery = made
    each = next(iter(gallery.found.values()))
    monkeypatch.setattr(
        "embedcore.report.gallery.gallery_file._MOST_BYTES", 2 * (each.indices.nbytes + each.similarities.nbytes)
    )
    (tmp_path / "neighbours.npz").write_bytes(written(shown(board, gallery)))
    assert list(read(tmp_path / "neighbours.npz").found) == [row.result.model for row in board.by_acc][:2]


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
    assert gallery_of(dataset, {}, {}).labels.names == dataset.names
    assert dataset_of({"dataset": str(folder / "gone")}, tmp_path) is None and "not available" in caplog.text
    assert dataset_of({"dataset": "hfds/somebody/images"}, tmp_path) is None
    assert dataset_of({}, tmp_path) is None
