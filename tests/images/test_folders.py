from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.images.folders import scan_folder


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
    assert found.notes == (f"1 images outside {'/ and '.join(sorted(['query', name], key=str.lower))}/ were left out",)


@pytest.mark.parametrize("side", ["query", "reference", "gallery"])
def test_classes_in_one_side_without_the_other_are_refused(make_folder, side: str) -> None:
    root = make_folder({f"{side}/a": 1, f"{side}/b": 1, "refs/a": 1, "refs/b": 1})
    with pytest.raises(UsageError, match=f"classes in {side}/ but no folder .*--embed-split loo"):
        scan_folder(root, split="auto")
    assert scan_folder(root, split="loo").roles is None


def test_one_side_alone_is_a_class_like_others(make_folder) -> None:
    found = scan_folder(make_folder({"query": 1, "other": 1}), split="auto")
    assert list(found.class_names) == ["other", "query"] and found.roles is None


def test_split_loo_takes_the_sides_for_classes(make_folder) -> None:
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
