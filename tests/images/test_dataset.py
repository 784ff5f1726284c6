from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.load_dataset import load_dataset


def test_leave_one_out_of_a_folder(make_folder) -> None:
    dataset = load_dataset(str(make_folder({"b": 2, "a": 3})))
    assert dataset.name == "photos"
    assert dataset.classes == ("a", "b")
    assert dataset.labels.dtype == np.int64 and dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.leave_one_out and dataset.is_query.all() and dataset.is_reference.all()
    assert dataset.reference_labels is None
    assert len(dataset) == len(dataset.images) == len(dataset.digests) == 5


def test_two_sides(make_folder) -> None:
    dataset = load_dataset(str(make_folder({"query/a": 1, "reference/a": 2, "reference/b": 1})))
    assert not dataset.leave_one_out
    assert dataset.query_labels.tolist() == [0]
    assert dataset.reference_labels is not None and dataset.reference_labels.tolist() == [0, 0, 1]
    assert (dataset.is_query ^ dataset.is_reference).all()
    alone = load_dataset(str(make_folder({"query/a": 1})), split="loo")
    assert alone.leave_one_out and alone.classes == ("query/a", "reference/a", "reference/b")


def test_a_csv(make_folder) -> None:
    root = make_folder({"a": 2, "b": 2})
    table = root / "list.csv"
    table.write_text("path,label\na/000.png,x\nb/000.png,y\na/001.png,x\n")
    dataset = load_dataset(f"csv:{table}")
    assert dataset.name == "list" and dataset.labels.tolist() == [0, 1, 0]


def test_emoji_has_256_classes_by_default() -> None:
    dataset = load_dataset()
    assert len(dataset.classes) == 256
    assert 256 <= dataset.is_query.sum() == dataset.is_reference.sum() < 800
    assert len(load_dataset(max_classes=3, max_per_class=1)) == 6
    assert len(load_dataset(max_classes=0).classes) > 1500
    assert load_dataset(seed=1).classes != dataset.classes
    assert dataset.credits


def test_summary(make_folder, make_image) -> None:
    root = make_folder({"a": 3, "b": 2})
    shutil.copy(root / "a" / "000.png", root / "b" / "copy.png")
    dataset = load_dataset(str(root))
    summary = dataset.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert list(summary) == [
        *("name", "fingerprint", "classes", "queries", "references"),
        *("acc5_ceiling", "chance_acc", "duplicates", "lone_queries"),
    ]
    assert (summary["classes"], summary["queries"], summary["references"]) == (2, 6, 6)
    assert (summary["duplicates"], summary["lone_queries"]) == (1, 0)
    # each query has two others of its class, among five
    assert summary["acc5_ceiling"] == pytest.approx(2 / 5)
    assert summary["chance_acc"] == pytest.approx(2 / 5)


def test_queries_without_a_reference_are_counted(make_folder) -> None:
    assert load_dataset(str(make_folder({"a": 3, "alone": 1}))).summary()["lone_queries"] == 1
    sides = make_folder({"query/a": 1, "query/b": 2, "gallery/a": 1, "gallery/c": 1}, root="sides")
    assert load_dataset(str(sides)).summary()["lone_queries"] == 2


def test_the_fingerprint_depends_on_content_not_location(make_folder, tmp_path: Path) -> None:
    root = make_folder({"query/a": 2, "query/b": 1, "reference/a": 1, "reference/b": 1})
    here = load_dataset(str(root))
    assert len(here.fingerprint) == 64
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    assert load_dataset(str(moved)).fingerprint == here.fingerprint
    assert pickle.loads(pickle.dumps(here)).fingerprint == here.fingerprint

    seen = {here.fingerprint}
    for change in (
        lambda: [(moved / side / "a").rename(moved / side / "A") for side in ("query", "reference")],  # another name
        lambda: (moved / "query" / "b" / "000.png").write_bytes(
            (moved / "query" / "b" / "000.png").read_bytes() + b"\0"
        ),
        lambda: (moved / "query" / "b" / "000.png").rename(moved / "reference" / "b" / "001.png"),  # another role
        lambda: shutil.copy(moved / "reference" / "A" / "000.png", moved / "query" / "A" / "002.png"),  # one more
    ):
        change()
        seen.add(load_dataset(str(moved)).fingerprint)
    assert len(seen) == 5


def test_the_fingerprint_depends_on_roles(make_folder) -> None:
    root = make_folder({"a": 2, "b": 2})
    rows = ["a/000.png,a", "a/001.png,a", "b/000.png,b", "b/001.png,b"]
    fingerprints = set()
    for roles in (["query", "reference"] * 2, ["reference", "query"] * 2):
        table = root / "list.csv"
        table.write_text(
            "path,label,role\n" + "\n".join(f"{row},{role}" for row, role in zip(rows, roles, strict=True))
        )
        fingerprints |= {
            load_dataset(f"csv:{table}").fingerprint,
            load_dataset(f"csv:{table}", split="loo").fingerprint,
        }
    assert len(fingerprints) == 3


def test_a_subset(make_folder) -> None:
    root = make_folder({f"class {number}": 4 for number in range(8)})
    dataset = load_dataset(str(root), max_classes=3, max_per_class=2)
    assert len(dataset.classes) == 3 and Counter(dataset.labels.tolist()) == {0: 2, 1: 2, 2: 2}
    again = load_dataset(str(root), max_classes=3, max_per_class=2)
    assert again.fingerprint == dataset.fingerprint
    assert dataset.images.load(5).mode == "RGB"
    assert dataset.images.digest(5) == dataset.digests[5]
    assert len(load_dataset(str(root), max_classes=0, max_per_class=0)) == 32


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": 3}, r"only one class, 'a', in folder .*photos"),
        ({"a": 1, "b": 1}, r"every class in folder .*photos has only one image"),
        (
            {"query/a": 1, "reference/b": 1},
            r"no query has a reference of its class in folder .*photos: 1 queries and 1",
        ),
        ({"query/a": 1, "reference/a": 1}, r"only one class, 'a'"),
    ],
)
def test_unmeasurable_datasets_are_refused(make_folder, classes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_dataset(str(make_folder(classes)))


def test_a_csv_with_one_role_only(make_folder) -> None:
    root = make_folder({"a": 1, "b": 1})
    (root / "list.csv").write_text("path,label,role\na/000.png,a,query\nb/000.png,b,query\n")
    with pytest.raises(UsageError, match="no reference images in csv file"):
        load_dataset(f"csv:{root / 'list.csv'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "/nowhere/at/all",
            r"no such folder of images: /nowhere/at/all; a dataset is emoji, objects, a folder, a zip or tar",
        ),
        ("nowhere/at/all", r"no such folder of images: /.*/nowhere/at/all"),
        ("coco:val", r"unknown dataset scheme 'coco' in 'coco:val'"),
        ("csv:nowhere.csv", r"no such csv file: /.*/nowhere\.csv"),
        ("", r"the name of the dataset is empty"),
        ("a" * 5000, r"no such folder of images: a{200}: File name too long"),
        ("csv:" + "a" * 5000, r"no such csv file: /.*/aaa"),
        ("csv:" + "a" * 5000 + "?path=b", r"no such csv file: /.*/aaa"),
    ],
)
def test_invalid_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(spec)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path: Path, make_image) -> None:
    with pytest.raises(UsageError, match=r"x\.png is a file, not a folder"):
        load_dataset(str(make_image(tmp_path / "x.png")))


def test_bad_arguments(make_folder) -> None:
    root = str(make_folder({"a": 2, "b": 2}))
    with pytest.raises(UsageError, match="unknown split 'half': one of auto, loo"):
        load_dataset(root, split="half")
    with pytest.raises(UsageError, match="max_classes is -1"):
        load_dataset(root, max_classes=-1)
    with pytest.raises(UsageError, match="max_per_class is -2"):
        load_dataset(root, max_per_class=-2)


def test_animated_images_are_noted_also_from_the_ledger(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    assert load_dataset(str(root)).notes == ()
    frames[0].save(root / "b" / "moving 1.gif", save_all=True, append_images=frames[1:])
    assert load_dataset(str(root)).notes == ("1 animated image, such as 'b/moving 1.gif': only first frames are used",)
    frames[1].save(root / "a" / "new\nline.gif", save_all=True, append_images=frames[1:])
    frames[2].save(root / "b" / "pages.tif", save_all=True, append_images=frames[1:])  # no animation
    expected = ("2 animated images, such as 'a/new\\nline.gif': only first frames are used",)
    for _ in range(2):
        assert load_dataset(str(root), cache_dir=tmp_path / "cache").notes == expected


def test_a_note_on_animated_images_follows_those_of_the_source(make_folder) -> None:
    root = make_folder({"query/a": 1, "reference/a": 1, "reference/b": 1, "outside": 1})
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime")]
    frames[0].save(root / "query" / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    outside, animated = load_dataset(str(root)).notes
    assert "left out" in outside and "'query/a/moving.gif'" in animated


def test_an_unreadable_file_is_named(make_folder) -> None:
    root = make_folder({"a": 2, "b": 2})
    (root / "a" / "gone.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"1 of 5 images of folder .* cannot be read:\n  'a/gone\.png': No such file"):
        load_dataset(str(root))


def test_a_flat_folder_is_refused_with_an_explanation(make_folder) -> None:
    with pytest.raises(UsageError, match=r"folder .*photos has no subfolders, .*one folder per class") as caught:
        load_dataset(str(make_folder({".": 3})))
    assert "\n" not in str(caught.value)


def test_sides_by_name_need_a_folder(make_folder) -> None:
    root = make_folder({"a/x": 2, "b/x": 1, "a/y": 1})
    dataset = load_dataset(str(root), split="a:b")
    assert dataset.query_names == ("b/x/000.png",) and dataset.classes == ("x", "y")
    with pytest.raises(UsageError, match=r"split 'a:b' names two folders .*, and 'emoji' is neither a folder nor a"):
        load_dataset("emoji", split="a:b")
    with pytest.raises(UsageError, match="no such csv file"):
        load_dataset("csv:list.csv", split="a:b")
    for split in ("half", ":b", "a:", "a:b:c"):
        with pytest.raises(UsageError, match=f"unknown split '{split}'"):
            load_dataset(str(root), split=split)
