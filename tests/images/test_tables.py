from __future__ import annotations

from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.images.tables import read_table


@pytest.fixture
def folder(tmp_path: Path, make_image) -> Path:
    for name in ("1.png", "2.png", "deep/3.png", "with, comma.png"):
        make_image(tmp_path / "images" / name)
    return tmp_path


def table(folder: Path, content: str | bytes) -> Path:
    file = folder / "shop.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_paths_are_relative_to_the_file(folder: Path) -> None:
    content = 'path,label\nimages/2.png,b\nimages/deep/3.png,a b\n"images/with, comma.png",b\n'
    found = read_table(table(folder, content), split="auto")
    assert list(found.class_names) == ["b", "a b", "b"]
    assert found.roles is None and found.name == "shop"
    assert found.source.name(1) == "images/deep/3.png"
    assert found.source.load(2).size == (32, 24)


def test_absolute_paths_other_columns_any_order_and_a_byte_order_mark(folder: Path) -> None:
    content = f"\ufeffLabel,weight, Path\nx,3,{folder}/images/1.png\n"
    found = read_table(table(folder, content), split="auto")
    assert list(found.class_names) == ["x"]
    assert found.source.load(0).mode == "RGB"


def test_roles(folder: Path) -> None:
    content = "path,label,role\nimages/1.png,a,query\nimages/2.png,a,Reference\nimages/deep/3.png,a,gallery\n"
    assert read_table(table(folder, content), split="auto").roles == ["query", "reference", "reference"]
    assert read_table(table(folder, content), split="loo").roles is None


def test_bytes_that_are_not_utf_8_stand_for_themselves(folder: Path) -> None:
    (folder / "images" / "1.png").rename(folder.joinpath("images", "\udce9.png"))
    found = read_table(table(folder, b"path,label\nimages/\xe9.png,caf\xe9\n"), split="auto")
    assert list(found.class_names) == ["caf\udce9"]
    assert found.source.load(0).size == (32, 24)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"line 1: no column 'path'"),
        ("file,label\nx,y\n", r"line 1: no column 'path'; .*path,label\[,role\], it is 'file,label'"),
        ("path,class\nx,y\n", r"line 1: no column 'label'"),
        ("path,label\n", r"names no images"),
        ("path,label\nimages/1.png,a\n,a\n", r"line 3: column 'path' is empty"),
        ("path,label\nimages/1.png,\n", r"line 2: column 'label' is empty"),
        ("path,label\nimages/1.png\n", r"line 2: column 'label' is empty"),
        ("path,label,role\nimages/1.png,a,\n", r"line 2: column 'role' is empty"),
        ("path,label,role\nimages/1.png,a,probe\n", r"line 2: role 'probe' is none of query, reference, gallery"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_table(table(folder, content), split="auto")
    assert "shop.csv" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such csv file: .*nowhere\.csv"):
        read_table(tmp_path / "nowhere.csv", split="auto")


def test_a_wrong_folder_is_one_line_that_names_it(folder: Path, monkeypatch) -> None:
    rows = "".join(f"images/{number}.png,a\n" for number in (1, 2) for _ in range(100))
    elsewhere = folder / "lists"
    elsewhere.mkdir()
    file = table(elsewhere, f"path,label\n{rows}")
    with pytest.raises(UsageError) as caught:
        read_table(file, split="auto")
    said = str(caught.value)
    assert said == (
        f"none of the 200 images of csv file {file} (paths are relative to its folder) is there: "
        f"the first is looked for at {elsewhere}/images/1.png"
    )
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="it is there from the folder you are in: put the csv there"):
        read_table(file, split="auto")
    assert len(read_table(table(folder, f"path,label\n{rows}"), split="auto").source) == 200


def test_one_image_that_is_there_leaves_the_others_to_the_audit(folder: Path) -> None:
    found = read_table(table(folder, "path,label\nimages/none.png,a\nimages/1.png,a\n"), split="auto")
    assert len(found.source) == 2 and "relative to its folder" in found.where
