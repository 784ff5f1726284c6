"""Views of images, and the datasets that have them in place of labels."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.dataset import Dataset
from embedcore.images.decode import BadImageError
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import as_dataset, count_images, load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.images.views import View, ViewSource

digests = st.integers(0, 2**256 - 1).map("{:064x}".format)


def crop(pixels: np.ndarray, view: View) -> np.ndarray:
    """The view of an array [h, w, 3]."""
    height, width = pixels.shape[:2]
    rows = slice(round(view.top * height), round((view.top + view.height) * height))
    columns = slice(round(view.left * width), round((view.left + view.width) * width))
    return pixels[rows, columns][:, ::-1] if view.mirrored else pixels[rows, columns]


def views_of(dataset: Dataset) -> list[View]:
    assert isinstance(dataset.images, ViewSource)
    return [view for _, view in dataset.images.items[len(dataset) // 2 :]]


def test_images_are_references_and_their_views_queries(root: Path) -> None:
    dataset = load_dataset(str(root), unlabelled=True)
    number = len(dataset) // 2
    assert number == 5 and dataset.name == "photos" and not dataset.leave_one_out
    assert dataset.is_reference.tolist() == [True] * 5 + [False] * 5 == (~dataset.is_query).tolist()
    assert dataset.query_labels.tolist() == [0, 1, 2, 3, 4] == dataset.reference_labels.tolist()
    for place, view in enumerate(views_of(dataset)):
        with Image.open(root / dataset.titles[place]) as image:
            pixels = np.array(image)
        assert np.array_equal(dataset.images.load(place, dataset.digests[place]), pixels)
        loaded = dataset.images.load(number + place, dataset.digests[number + place])
        assert np.array_equal(loaded, crop(pixels, view))
        assert np.array_equal(dataset.images.preview(number + place)[0], loaded)
        assert 0.15 < loaded.width * loaded.height / pixels[..., 0].size < 0.65
        assert dataset.names[number + place] == f"{dataset.titles[place]} (view)"
    assert [dataset.images.digest(index) for index in range(10)] == [*dataset.digests]
    assert repr(dataset) == "Dataset 'photos': 5 images without labels, and a view of each"
    summary = dataset.summary()
    assert summary["unlabelled"] is True and not [key for key in summary if "acc" in key]


@given(digests, st.integers(0, 2**63 - 1))
def test_a_view_is_a_part_of_its_image_of_the_documented_size(digest: str, seed: int) -> None:
    view = View.drawn(digest, seed)
    assert view == View.drawn(digest, seed)
    assert 0.2 - 1e-5 <= view.width * view.height <= 0.6 + 1e-5
    assert 3 / 4 - 1e-5 <= view.width / view.height <= 4 / 3 + 1e-5
    assert min(view.left, view.top) >= 0
    assert max(view.left + view.width, view.top + view.height) <= 1 + 2e-6


def test_views_vary_and_half_are_mirrored() -> None:
    views = [View.drawn(f"{number:064x}", 0) for number in range(2000)]
    assert abs(np.mean([view.mirrored for view in views]) - 0.5) < 0.05
    areas, ratios = ([getattr(np, name)(view.width, view.height) for view in views] for name in ("multiply", "divide"))
    assert abs(np.mean(areas) - 0.4) < 0.02 and abs(np.mean(np.log(ratios))) < 0.02
    assert np.corrcoef([view.left for view in views], [view.top for view in views])[0, 1] < 0.3
    assert len({view.digest for view in views}) == len({View.drawn("0" * 64, seed).digest for seed in range(2000)})


@given(digests, st.integers(1, 40), st.integers(1, 40))
def test_the_view_of_a_tiny_image_has_a_pixel(digest: str, width: int, height: int) -> None:
    cropped = View.drawn(digest, 0).of(Image.new("RGB", (width, height)))
    assert 1 <= cropped.width <= width and 1 <= cropped.height <= height


def test_neither_order_nor_names_nor_folders_matter_and_the_seed_does(root: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(root), unlabelled=True)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(root.rglob("*.png"), reverse=True)):
        shutil.copy(path, flat / f"{number}.png")
    other = load_dataset(str(flat), unlabelled=True)
    assert other.fingerprint == dataset.fingerprint and [*other.digests] == [*dataset.digests]
    again = load_dataset(str(root), unlabelled=True, seed=1)
    assert [*again.digests[:5]] == [*dataset.digests[:5]] and not {*again.digests[5:]} & {*dataset.digests[5:]}
    assert again.fingerprint != dataset.fingerprint != load_dataset(str(root)).fingerprint


def test_of_copies_the_first_is_kept(root: Path) -> None:
    shutil.copy(root / "cat" / "000.png", root / "dog" / "copy.png")
    shutil.copy(root / "cat" / "000.png", root / "dog" / "more.png")
    dataset = load_dataset(str(root), unlabelled=True)
    assert len(dataset) == 10 and dataset.notes == ("2 exact copies of other images left out",)
    assert "cat/000.png" in dataset.titles and "dog/copy.png" not in dataset.titles


def test_any_source_of_images_will_do(root: Path, tmp_path: Path) -> None:
    expected = load_dataset(str(root), unlabelled=True).fingerprint
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, path.relative_to(root))
    paths = sorted(root.rglob("*.png"))
    lines = [os.fspath(path.relative_to(root)) for path in paths]
    (root / "list.csv").write_text("\n".join(["picture", *lines]))
    (root / "named.csv").write_text("\n".join(["path,label", *(f"{line},same" for line in lines)]))
    cache = tmp_path / "cache"
    found = [
        load_dataset(str(tmp_path / "photos.zip"), unlabelled=True, cache_dir=cache),
        load_dataset(f"csv:{root}/list.csv", unlabelled=True, columns={"path": "picture"}),
        load_dataset(f"csv:{root}/named.csv", unlabelled=True),
        load_dataset(root, unlabelled=True),
        load_dataset(paths, unlabelled=True),
        load_dataset(as_dataset(root), unlabelled=True),
    ]
    assert {dataset.fingerprint for dataset in found} == {expected}
    assert found[0].name == "photos" and found[1].name == "list"


def test_splits_are_folders_like_others(make_folder) -> None:
    root = make_folder({"train/a": 2, "val/a": 1, "more": 1, ".": 1})
    dataset = load_dataset(str(root), unlabelled=True)
    assert len(dataset) == 10 and dataset.notes == ()


def test_subsets_are_chosen_by_the_labels_that_there_are(root: Path) -> None:
    assert len(load_dataset(str(root), unlabelled=True, max_per_class=2)) == 8
    assert count_images(str(root), unlabelled=True, max_per_class=2) == 8
    emoji = load_dataset("emoji", split="loo", max_classes=2, max_per_class=2)
    views = load_dataset("emoji", max_classes=2, max_per_class=2, unlabelled=True)
    assert {*views.digests[: len(emoji)]} == {*emoji.digests} and views.credits == emoji.credits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "loo"}, "--embed-split loo / split='loo' divides labelled images: leave it out with --embed-unlab"),
        ({"columns": {"path": "file"}}, "names columns of a table .*; a folder with --embed-unlabelled .* has none"),
        ({"max_per_class": 1, "max_classes": 1}, "photos has 1 image without copies: at least two are needed"),
    ],
)
def test_what_does_not_fit_is_refused(root: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_dataset(str(root), unlabelled=True, **arguments)


def test_bad_images_are_named_or_skipped(root: Path) -> None:
    (root / "broken.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"1 of 6 images .*\n  'broken\.png'"):
        load_dataset(str(root), unlabelled=True)
    dataset = load_dataset(str(root), unlabelled=True, bad_images="skip")
    assert len(dataset) == 10 and [name for name, _ in dataset.skipped] == ["broken.png"]


def test_a_changed_image_has_no_view(root: Path, make_image) -> None:
    dataset = load_dataset(str(root), unlabelled=True)
    make_image(root / dataset.titles[0], seed=77)
    with pytest.raises(BadImageError, match="its content has changed"):
        dataset.images.load(5, dataset.digests[5])


def test_the_pixel_store_has_images_and_views(root: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(root), unlabelled=True)
    geometry = Geometry(16, 20, "bicubic", 0.9, "center")
    store = open_pixel_store(dataset, geometry, tmp_path / "cache")
    assert store.shape == (10, 16, 20, 3)
    images = pickle.loads(pickle.dumps(dataset.images))  # as a decoding process gets them
    for index in range(10):
        assert np.array_equal(store.read(index, index + 1)[0], geometry.transform()(images.load(index)))


def test_a_list_takes_no_argument_that_chooses_among_labelled_images():
    images = list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8))
    assert load_dataset(images, unlabelled=True, seed=1).unlabelled
    for name, value in {"labels": [0, 0, 1], "max_per_class": 1, "split": "loo", "bad_images": "skip"}.items():
        with pytest.raises(UsageError, match=f"^{name}: not for a list of images without labels: "):
            load_dataset(images, unlabelled=True, **{name: value})
