from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedcore.errors import UsageError
from embedcore.images import folders, plugins
from embedcore.images.folders import scan_folder
from embedcore.images.labels import lookalike_notes
from embedcore.images.load_dataset import load_dataset


def test_a_class_is_a_folder_path(make_folder) -> None:
    root = make_folder({"red/small": 1, "blue/small": 1, "red": 2})
    found = scan_folder(root, split="auto")
    assert list(found.class_names) == ["blue/small", "red", "red", "red/small"]
    assert [found.source.name(index) for index in range(4)] == [
        "blue/small/000.png",
        "red/000.png",
        "red/001.png",
        "red/small/000.png",
    ]
    assert found.roles is None
    assert found.name == "photos"


def test_images_in_the_root_are_a_class(make_folder, make_image) -> None:
    root = make_folder({"a": 1})
    make_image(root / "loose.png")
    assert list(scan_folder(root, split="auto").class_names) == ["a", "."]


@pytest.mark.parametrize("name", ["gallery", "reference", "Reference"])
def test_query_and_reference_folders_are_the_two_sides(make_folder, name: str) -> None:
    root = make_folder({"query/a/x": 1, f"{name}/a/x": 2, f"{name}/b": 1, "notes": 1})
    found = scan_folder(root, split="auto")
    assert sorted(zip(found.class_names, found.roles, strict=True)) == [
        ("a/x", "query"),
        ("a/x", "reference"),
        ("a/x", "reference"),
        ("b", "reference"),
    ]
    assert found.notes == (f"left out: 1 image outside {'/ and '.join(sorted(['query', name], key=str.lower))}/",)


@pytest.mark.parametrize("side", ["query", "reference", "gallery"])
def test_classes_in_one_side_without_the_other_are_refused(make_folder, side: str) -> None:
    root = make_folder({f"{side}/a": 1, f"{side}/b": 1, "refs/a": 1, "refs/b": 1})
    with pytest.raises(UsageError, match=f"classes in {side}/ but no folder .*--embed-split loo"):
        scan_folder(root, split="auto")
    assert scan_folder(root, split="loo").roles is None


def test_one_side_alone_is_a_class_like_others(make_folder) -> None:
    found = scan_folder(make_folder({"query": 1, "other": 1}), split="auto")
    assert list(found.class_names) == ["other", "query"] and found.roles is None


def test_split_loo_treats_sides_as_classes(make_folder) -> None:
    found = scan_folder(make_folder({"query/a": 1, "reference/a": 1}), split="loo")
    assert list(found.class_names) == ["query/a", "reference/a"] and found.roles is None


def test_extensions_any_case_hidden_files_not(tmp_path: Path) -> None:
    for name in ("a/1.PNG", "a/2.JpEg", "a/3.webp", "a/4.tiff", "a/5.gif", "a/6.bmp", "a/7.ppm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("a/.hidden.png", "a/notes.txt", "a/png", ".git/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = scan_folder(tmp_path, split="auto")
    assert [found.source.name(index)[:3] for index in range(len(found.source))] == [f"a/{n}" for n in range(1, 8)]


def test_the_order_is_that_of_the_bytes_of_the_parts(tmp_path: Path) -> None:
    names = ["b/1.png", "a/10.png", "a/9.png", "a-b/1.png", "é/1.png", "Z/1.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = scan_folder(tmp_path, split="auto")
    order = [found.source.name(index) for index in range(len(names))]
    assert order == ["Z/1.png", "a/10.png", "a/9.png", "a-b/1.png", "b/1.png", "é/1.png"]


def test_strange_names(tmp_path: Path, make_image) -> None:
    strange = ["with space", "new\nline", "emoji 🙂", os.fsdecode(b"latin-\xe9"), "a,b;c'd\"e"]
    for name in strange:
        make_image(tmp_path / name / "it is.png")
    found = scan_folder(tmp_path, split="auto")
    assert set(found.class_names) == set(strange)
    assert all(found.source.load(index).size == (32, 24) for index in range(len(strange)))


def test_links_are_followed_and_loops_end(tmp_path: Path, make_folder, make_image) -> None:
    root = make_folder({"a": 1})
    make_image(tmp_path / "elsewhere" / "x.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "back").symlink_to(root)
    assert list(scan_folder(root, split="auto").class_names) == ["a", "linked"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder: .*nowhere"):
        scan_folder(tmp_path / "nowhere", split="auto")


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "readme.txt").touch()
    with pytest.raises(
        UsageError, match=r"no images under .*: looked for .*\.jpg .*in it and its subfolders"
    ) as caught:
        scan_folder(tmp_path, split="auto")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("training", "held_out"), [("train", "val"), ("Train", "test"), ("training", "validation")])
def test_a_training_split_is_two_sides(make_folder, training: str, held_out: str) -> None:
    root = make_folder({f"{training}/cat": 2, f"{training}/dog": 1, f"{held_out}/cat": 1, "notes": 1})
    found = scan_folder(root, split="auto")
    assert sorted(zip(found.class_names, found.roles, strict=True)) == [
        ("cat", "query"),
        ("cat", "reference"),
        ("cat", "reference"),
        ("dog", "reference"),
    ]
    assert (
        f"{held_out}/ are the queries, {training}/ the references (--embed-split loo / split='loo' makes them one set)"
        in found.notes
    )
    assert any("1 image outside" in note for note in found.notes)


def test_a_training_split_is_one_set_for_leave_one_out(make_folder) -> None:
    root = make_folder({"train/cat": 1, "val/cat": 1, "test/dog": 1})
    found = scan_folder(root, split="loo")
    assert list(found.class_names) == ["dog", "cat", "cat"] and found.roles is None
    assert found.notes == ("test/, train/ and val/ are merged: a class is the same in each",)


def test_three_parts_of_a_training_split_are_refused(make_folder) -> None:
    root = make_folder({"train/cat": 1, "val/cat": 1, "test/cat": 1})
    with pytest.raises(
        UsageError,
        match=r"test/, train/ and val/: .*--embed-split train:test / split='train:test', or use all .*-split loo",
    ):
        scan_folder(root, split="auto")
    with pytest.raises(UsageError, match=r"--embed-split test:val"):
        scan_folder(make_folder({"test/cat": 1, "val/cat": 1}, root="other"), split="auto")


def test_a_training_split_without_classes_is_refused(make_folder) -> None:
    root = make_folder({"train": 2, "val": 2})
    with pytest.raises(UsageError, match=r"train/ and val/ are not in class folders: use one folder per class"):
        scan_folder(root, split="auto")
    assert list(scan_folder(root, split="loo").class_names) == ["train", "train", "val", "val"]


def test_a_class_called_train_is_a_class(make_folder) -> None:
    assert list(scan_folder(make_folder({"train": 1, "bus": 1}), split="auto").class_names) == ["bus", "train"]


def test_the_sides_may_be_named(make_folder) -> None:
    root = make_folder({"train/cat": 1, "val/cat": 1, "test/cat": 1, "2023/cat": 1})
    found = scan_folder(root, split="train+val:2023")
    assert dict(zip([found.source.name(i) for i in range(3)], found.roles, strict=True)) == {
        "2023/cat/000.png": "query",
        "train/cat/000.png": "reference",
        "val/cat/000.png": "reference",
    }
    assert found.notes == ("left out: 1 image outside 2023/ and train/ and val/",)
    with pytest.raises(UsageError, match=r"no images in .*photos/vol; folders there: 2023/, test/, train/, val/"):
        scan_folder(root, split="train:vol")
    with pytest.raises(UsageError, match=r"val cannot be on both sides"):
        scan_folder(root, split="train+val:val")


def test_loose_images_beside_classes_are_noted(make_folder, make_image) -> None:
    root = make_folder({"a": 1})
    make_image(root / "loose.png")
    assert scan_folder(root, split="auto").notes == ("images in the folder itself (1) are a class of their own",)


def test_pictures_that_are_not_read_are_named(make_folder, monkeypatch) -> None:
    root = make_folder({"a": 1})
    for name in ("1.HEIC", "2.heic", "3.jxl", "4.cr2", "notes.txt", ".hidden.heic"):
        (root / "a" / name).touch()
    monkeypatch.setattr(folders, "installed", dict)
    assert scan_folder(root, split="auto").notes == (
        "1 .cr2 file not read (convert them to another format)",
        "2 .heic files not read (pip install pillow-heif)",
        "1 .jxl file not read (pip install pillow-jxl-plugin)",
    )
    (root / "a" / "000.png").unlink()
    with pytest.raises(UsageError, match=r"no images under .*; 2 \.heic files not read \(pip install pillow-heif\)"):
        scan_folder(root, split="auto")


def test_an_installed_pillow_plugin_is_used(make_folder, make_image, tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    plugins.register()
    root = make_folder({"a": 1})
    Image.open(root / "a" / "000.png").save(root / "a" / "001.HEIC", quality=-1, chroma=444)
    found = scan_folder(root, split="auto")
    assert [found.source.name(index) for index in range(2)] == ["a/000.png", "a/001.HEIC"] and found.notes == ()
    png, heic = (np.asarray(found.source.load(index)).astype(int) for index in range(2))
    assert abs(png - heic).max() <= 4  # lossless but for the conversion of colours
    assert "pillow-heif" in found.source.decoder


MADE_BY_SYSTEMS = [
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "$Recycle.Bin", "__MACOSX"),
    *("lost+found", "System Volume Information", "Thumbnails", "thumbnails", "__pycache__"),
    *(".snapshot", ".thumbnails", ".ipynb_checkpoints", ".git", ".@__thumb"),
]


@pytest.mark.parametrize("name", MADE_BY_SYSTEMS)
@pytest.mark.parametrize("where", ["", "a/", "a/deep/"])
def test_system_folders_are_not_classes(make_folder, make_image, name: str, where: str) -> None:
    root = make_folder({"a": 2, "a/deep": 2, "b": 2})
    plain = load_dataset(str(root))
    for folder in (name, f"{name}/001.png"):  # Synology's thumbnails lie in a folder for each image
        make_image(root / f"{where}{folder}" / "SYNOPHOTO_THUMB_XL.jpg")
    found = load_dataset(str(root))
    assert found.fingerprint == plain.fingerprint and found.classes == ("a", "a/deep", "b")
    assert found.notes == (f"ignored: {name}/",)


def test_ignored_files_are_counted_in_a_note(make_folder, make_image) -> None:
    root = make_folder({"a": 1, "b": 1})
    for path in ("a/@eaDir/1.jpg", "b/@eaDir/1.jpg", "#recycle/1.jpg", "a/._000.png", "b/._000.png"):
        make_image(root / path)
    for path in ("a/.DS_Store", "a/Thumbs.db"):
        (root / path).touch()
    found = scan_folder(root, split="auto")
    assert found.notes == ("ignored: #recycle/, @eaDir/ (2), 2 hidden files",)
    assert list(found.class_names) == ["a", "b"]


def test_a_folder_without_other_images_names_the_ignored_folders(make_folder) -> None:
    with pytest.raises(UsageError, match=r"no images under .*; ignored: @eaDir/"):
        scan_folder(make_folder({"a/@eaDir": 1}), split="auto")


def test_the_dataset_itself_may_have_such_a_name(make_folder) -> None:
    root = make_folder({"a": 1, "b": 1}, root="Thumbnails")
    assert list(scan_folder(root, split="auto").class_names) == ["a", "b"]


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Caf\u00e9") for form in ("NFC", "NFD"))


def test_a_class_is_one_whichever_form_of_unicode_its_folders_have(make_folder) -> None:
    root = make_folder({f"train/{COMPOSED}": 2, f"val/{DECOMPOSED}": 1, "train/b": 1, "val/b": 1})
    dataset = load_dataset(str(root))
    assert dataset.classes == (COMPOSED, "b") and dataset.summary()["lone_queries"] == 0
    assert {Path(dataset.images.root, name).is_file() for name in dataset.names} == {True}  # as on disk
    one_set = load_dataset(str(make_folder({COMPOSED: 2, DECOMPOSED: 2, "b": 2}, root="one set")))
    assert one_set.classes == (COMPOSED, "b") and one_set.notes == ()


def test_a_dataset_is_the_same_in_either_form_of_unicode(make_folder) -> None:
    classes = {"Cafe": 9, "Cafez": 9}  # between which the two forms lie differently
    roots = [make_folder({**classes, name: 9}, root=f"in {form}") for form, name in enumerate((COMPOSED, DECOMPOSED))]
    for limit in (0, 4):
        first, second = (load_dataset(str(root), max_per_class=limit) for root in roots)
        assert first.fingerprint == second.fingerprint


def test_sides_are_found_in_either_form_of_unicode(make_folder) -> None:
    root = make_folder({f"{DECOMPOSED}/a": 1, "new/a": 1})
    found = scan_folder(root, split=f"{COMPOSED}:new")
    assert list(found.class_names) == ["a", "a"] and sorted(found.roles or ()) == ["query", "reference"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["Cat", "cat", "dog"], "'Cat', 'cat'"),
        (["cat", "cat ", " cat", "dog"], "' cat', 'cat', 'cat '"),
        (["a  b", "a b"], "'a  b', 'a b'"),
        (["cat\N{NO-BREAK SPACE}", "cat"], r"'cat', 'cat\xa0'"),
        (["A", "a", "B", "b", "C", "c", "D", "d"], "'A', 'a'; 'B', 'b'; 'C', 'c'; and 1 more"),
    ],
)
def test_similar_class_names_are_noted(names: list[str], text: str) -> None:
    reported = "classes that differ in case or white space only are different classes: "
    assert lookalike_notes([*names, *names]) == (reported + text,)


def test_other_class_names_are_not_noted() -> None:
    assert lookalike_notes(["cat", "cats", "dog", "dog"]) == ()


def test_folders_that_differ_in_case_only_are_noted(make_folder, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    if (tmp_path / "X").exists():
        pytest.skip("needs a file system that tells cases apart")
    dataset = load_dataset(str(make_folder({"Cat": 2, "cat": 2, "dog": 2})))
    assert dataset.classes == ("Cat", "cat", "dog")
    (note,) = dataset.notes
    assert note.endswith(": 'Cat', 'cat'")
