"""Distractors beside the labelled images: acc in larger galleries, and nothing else of the result changes."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedcore import Bench, CaseSettings, OwnModel, embed_dataset, load_backbone, load_dataset
from embedcore.errors import UsageError
from embedcore.measure import measure as measure_module
from embedcore.measure.distractors import load_distractors
from embedcore.measure.measure import attempt
from embedcore.measure.outcome import NotFiniteError
from embedcore.results.verdicts import unpack_classes, unpack_verdicts
from tests.measure.test_forward import unequal_fields

MODEL = "test_resnet.r160_in1k"
FILES = 230


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """230 images in a tree of folders, in the colours of the labelled ones."""
    root, rng = tmp_path_factory.mktemp("distractors"), np.random.default_rng(5)
    for number in range(FILES):
        pixels = np.clip(rng.normal(rng.integers(40, 200, 3), 45, (48, 64, 3)), 0, 255).astype(np.uint8)
        path = root / f"{number % 3}" / ("deep" if number % 2 else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(cache):
    settings = CaseSettings(weights="random", rounds=1, device="cpu", throughput=False)
    return Bench(settings, cache=cache, isolation="none")


def expected(dataset, distractors):
    """Number of distractors nearer than the best positive, and whether the nearest image is of the class."""
    backbone = load_backbone(MODEL, weights="random")
    rows = embed_dataset(backbone, dataset).astype(np.float64)
    others = embed_dataset(backbone, distractors).astype(np.float64)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    positives = np.where(dataset.labels[:, None] == dataset.labels, similarity, -np.inf).max(axis=1)
    return (rows @ others.T > positives[:, None]).sum(axis=1), positives == similarity.max(axis=1)


def test_images_are_counted_and_all_else_stays(bench, dataset, folder):
    alone = bench.measure(MODEL, dataset)
    bench.distractors = load_distractors(folder, cache_dir=bench.cache)
    found = bench.measure(MODEL, dataset)
    assert (alone.distractors, found.status, found.detail) == (None, "ok", "")
    assert unequal_fields(alone, found) == {"distractors"}
    beaten, right = expected(dataset, folder)
    assert found.distractors.count == FILES
    assert unpack_classes(found.distractors.beaten_by).tolist() == beaten.tolist()
    assert unpack_verdicts(found.verdicts).first.tolist() == right.tolist()
    acc, ci95 = found.distractors.acc, found.distractors.ci95
    assert set(acc) == set(ci95) == {"10x", "all"}  # 20 labelled images: 180 distractors for ten times as many
    assert acc["all"] == pytest.approx((right & (beaten == 0)).mean())
    assert acc["all"] <= acc["10x"] <= found.scores["acc"]
    assert found.gallery_scores["acc_10x"] == (acc["10x"], *ci95["10x"])


def test_their_embeddings_are_kept_and_labelled_images_are_not_decoded_again(bench, dataset, folder, monkeypatch):
    bench.distractors = load_distractors(folder, cache_dir=bench.cache)
    first = bench.measure(MODEL, dataset)
    embedded, original = [], measure_module.embed_pixels

    def counted(backbone, pixels, *arguments, **options):
        embedded.append(len(pixels))
        return original(backbone, pixels, *arguments, **options)

    monkeypatch.setattr(measure_module, "embed_pixels", counted)
    monkeypatch.setattr("embedcore.images.pixel_store._make", lambda *_: pytest.fail("decoded again"))
    again = bench.measure(MODEL, dataset)
    assert embedded == [len(dataset)] and again.distractors == first.distractors
    assert "distractors: embeddings were taken from" in again.detail
    assert again.embeddings is None  # those of the labelled images are not kept


def test_in_a_fresh_process_and_in_one_that_was_started_ahead(bench, dataset, folder, cache):
    process = Bench(bench.settings, cache=cache, timeout_s=120)
    process.distractors = bench.distractors = load_distractors(folder, cache_dir=cache)
    try:
        for model, following in ((MODEL, "test_vit.r160_in1k"), ("test_vit.r160_in1k", None)):
            follower = following and process.case(following)
            result = process.run(process.case(model), dataset, following=follower).result
            assert result.status == "ok", result.reason
            assert result.distractors == bench.measure(model, dataset).distractors
    finally:
        process.close()


def test_copies_of_labelled_images_are_left_out(bench, dataset, tmp_path):
    for name in dataset.names[:4]:
        path = tmp_path / "some" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(dataset.images.root, name), path)
    rng = np.random.default_rng(1)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "some" / f"{number}.png")
    bench.distractors = load_distractors(tmp_path / "some")
    note = f"distractors: 3 images of {tmp_path / 'some'}; left out: 4 copies of labelled images"
    assert bench.distractors.note(dataset) == note
    assert bench.measure(MODEL, dataset).distractors.count == 3
    shutil.copytree(dataset.images.root, tmp_path / "all")
    with pytest.raises(UsageError, match=r"all images of .* are copies of labelled images"):
        load_distractors(tmp_path / "all").note(dataset)


def test_embeddings_in_files_give_the_same_as_images(bench, dataset, folder, tmp_path):
    bench.distractors = load_distractors(folder, cache_dir=bench.cache)
    images = bench.measure(MODEL, dataset).distractors
    rows = embed_dataset(load_backbone(MODEL, weights="random"), folder)
    own = tmp_path / "shards" / MODEL
    own.mkdir(parents=True)
    np.save(own / "0.npy", 5 * rows[:100])  # normalised when they are read
    np.save(own / "1.npy", rows[100:])
    np.save(tmp_path / "shards" / "narrow.npy", rows[:, :7])
    bench.distractors = load_distractors(tmp_path / "shards")
    assert bench.distractors.note(dataset) == f"distractors: embeddings of {tmp_path / 'shards'}"
    files = bench.measure(MODEL, dataset).distractors
    assert (files.count, files.acc) == (images.count, pytest.approx(images.acc))
    other = bench.measure("test_vit.r160_in1k", dataset)  # has no folder of its own
    assert other.ok and other.distractors is None
    assert "no distractors: queries have 64 columns and references 7" in other.detail
    bench.distractors = load_distractors(own / "0.npy")
    assert bench.measure(MODEL, dataset).distractors.count == 100


def test_precomputed_embeddings_have_distractors_in_files_only(cache, dataset, folder, tmp_path):
    rows = embed_dataset(load_backbone(MODEL, weights="random"), dataset)
    np.save(tmp_path / "given.npy", rows)
    own = {"given": OwnModel(name="given", embeddings=str(tmp_path / "given.npy"))}
    bench = Bench(CaseSettings(device="cpu"), cache=cache, isolation="none", own_models=own)
    bench.distractors = load_distractors(tmp_path / "given.npy")
    assert bench.measure("given", dataset).distractors.count == len(dataset)
    bench.distractors = load_distractors(folder, cache_dir=cache)
    result = bench.measure("given", dataset)
    assert result.ok and result.distractors is None and "they are images" in result.detail


def test_distractors_that_are_not_finite_cost_no_case(case, images, monkeypatch):
    def embeddings(case, inputs, *arguments):
        if inputs.distractors is None:
            raise NotFiniteError("embeddings in fp32 contain NaN")
        return original(case, inputs, *arguments)

    original = measure_module._embeddings
    monkeypatch.setattr(measure_module, "_embeddings", embeddings)
    result = attempt(case, dataclasses.replace(images, distractors=images))
    assert result.ok and result.distractors is None
    assert result.detail.endswith("no distractors: embeddings in fp32 contain NaN")


def test_the_fingerprint_is_that_of_the_content(folder, tmp_path):
    fingerprint = load_distractors(folder).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert load_distractors(tmp_path / "copy").fingerprint == fingerprint
    (tmp_path / "copy" / "0" / "0.png").unlink()
    assert load_distractors(tmp_path / "copy").fingerprint != fingerprint
    files = []
    for number, value in enumerate((1.0, 1.0, 2.0)):
        np.save(tmp_path / f"{number}.npy", np.full((3, 4), value))
        files.append(load_distractors(tmp_path / f"{number}.npy").fingerprint)
    assert files[0] == files[1] != files[2]


def test_what_is_neither_images_nor_embeddings_is_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for what, message in (
        (tmp_path / "notes.txt", "is not a folder of images, or embeddings"),
        (tmp_path / "nowhere", "is not a folder of images, or embeddings"),
        (tmp_path, "no images under"),
    ):
        with pytest.raises(UsageError, match=message):
            load_distractors(what)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((2, 2)))
    (tmp_path / "rows.npy").chmod(0)
    with pytest.raises(UsageError, match=r"rows\.npy cannot be read: Permission denied"):
        load_distractors(tmp_path / "rows.npy")


def test_bad_images_are_refused_or_skipped(tmp_path):
    Image.new("RGB", (30, 30), (9, 99, 9)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(UsageError, match=r"1 of 2 images .* cannot be read"):
        load_distractors(tmp_path)
    found = load_distractors(tmp_path, bad_images="skip")
    assert len(found.images) == 1
    labelled = load_dataset([np.full((8, 8, 3), value, np.uint8) for value in (0, 1, 2, 3)], [*"aabb"])
    assert found.note(labelled).endswith("1 image of " + str(tmp_path) + "; skipped: 1 unreadable image")
