from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.images.columns import NAMES
from embedcore.images.folders import HELD_OUT, TRAINING, scan_folder
from embedcore.images.load_dataset import load_dataset
from embedcore.images.specification import check_exists
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"line 1: no column 'path'"),
        (
            "pic,label\nx,y\n",
            r"line 1: no column 'path'; .*path,label\[,role\]\[,split\], not 'pic,label'; or name yours: "
            r"--embed-columns path=NAME / columns='path=NAME'$",
        ),
        ("path,kind\nx,y\n", r"line 1: no column 'label'"),
        ("pic,kind\nx,y\n", r"or name yours: --embed-columns path=NAME,label=NAME / "),
        (
            "file,image,label\nx,y,z\n",
            r"line 1: 'file' or 'image' may be the path: choose .*--embed-columns path=file / ",
        ),
        ("path,Class,target\nx,y,z\n", r"line 1: 'Class' or 'target' may be the label: choose a column"),
        ("path,class,Class\nx,y,z\n", r"line 1: two columns 'class': rename one of them"),
        ("file,class\nimages/1.png,a\nimages/1.png,\n", r"line 3: column 'class' is empty"),
        ("path,label\n", r"names no images"),
        ("path,label\nimages/1.png,a\n,a\n", r"line 3: column 'path' is empty"),
        ("path,label\nimages/1.png,\n", r"line 2: column 'label' is empty"),
        ("path,label\nimages/1.png\n", r"line 2: 1 field for 2 columns \(path,label\)$"),
        ('path,label\n"images/1.png",a\n"images/2\n.png",b\n', r"line 3: column 'path' continues to line 4"),
        ('path,label\nimages/1.png,"a\nimages/2.png,"b"\n', r"line 2: not readable as csv .*is a quote not closed"),
        ("path,label,path\nimages/1.png,a,b\n", r"line 1: two columns 'path'"),
        ("path,label,role,Role\nimages/1.png,a,query,query\n", r"line 1: two columns 'role'"),
        ("path,label,split\nimages/1.png,a,train\nimages/2.png,a,\nx,a,val\n", r"line 3: column 'split' is empty"),
        ("path,label\nimages/1.png,a\nimages/2.png,\ufeff\n\n\n,,\n", r"line 6: 3 fields for 2 columns"),
        ("path,label\n" + 'images/1.png,"a\n' + "x.png,b\n" * 20_000, r"line 2: not readable as csv .*field"),
        ("path,label,role\nimages/1.png,a,\n", r"line 2: role '' is not one of query, reference, gallery"),
        ("path,label,role\nimages/1.png,a,probe\n", r"line 2: role 'probe' is not one of query, reference, gallery"),
    ],
)
def test_errors_name_the_line(folder: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_table(table(folder, content), split="auto")
    assert "shop.csv" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(folder: Path, encoding: str, newline: str) -> None:
    lines = ["path,label", "images/1.png,Käse", "", 'images/2.png,"日, 本"', "images/1.png,"]
    found = read_table(table(folder, newline.join(lines[:-1]).encode(encoding)), split="auto")
    assert list(found.class_names) == ["Käse", "日, 本"]
    with pytest.raises(UsageError, match=r"line 5: column 'label' is empty"):
        read_table(table(folder, newline.join(lines).encode(encoding)), split="auto")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na,b\nc,é\n".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        ("\ufeffpath,label\na,b\nc,".encode() + b"\x80\n", "line 3: byte 0x80 is not UTF-8-SIG"),
        ("path,label\na,b\n".encode("utf-16") + b"\x00\xd8\n", "line 3: byte 0x0. is not UTF-16"),
        ("path,label\na,b\nc,\0\n", "line 3: a NUL byte"),
    ],
)
def test_bytes_of_another_encoding_are_named(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_table(table(folder, content), split="auto")


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1),
            st.sampled_from(["plain", 'a "quoted" word', "salt, pepper", " spaces ", "日本"]),
        ),
        min_size=1,
    )
)
def test_output_of_pythons_csv_module_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    rows = [(path, label) for path, label in rows if path.strip()]
    folder = tmp_path_factory.mktemp("csv")
    file = folder / "rows.csv"
    (folder / "here.png").touch()
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), ("here.png", "first"), *rows])
    found = read_table(file, split="auto")
    assert [found.source.name(index) for index in range(len(found.source))] == [
        "here.png",
        *(p.strip() for p, _ in rows),
    ]
    assert list(found.class_names) == ["first", *(label.strip() for _, label in rows)]


@pytest.mark.parametrize("path", NAMES["path"])
@pytest.mark.parametrize("label", NAMES["label"])
def test_usual_names_of_columns(folder: Path, path: str, label: str) -> None:
    found = read_table(table(folder, f"n, {path.upper()},{label}\n1,images/1.png,a\n2,images/2.png,b\n"), split="auto")
    assert list(found.class_names) == ["a", "b"] and found.source.items == ("images/1.png", "images/2.png")


def test_the_own_name_of_a_column_wins(folder: Path) -> None:
    found = read_table(table(folder, "image,class,path,label\nx,y,images/1.png,a\n"), split="auto")
    assert list(found.class_names) == ["a"] and found.source.items == ("images/1.png",)


CHOSEN = "image,path,class,label\nimages/1.png,x,a,1\nimages/2.png,y,a,2\nimages/deep/3.png,z,b,3\n"


@pytest.mark.parametrize(
    ("spec", "columns"),
    [
        ("?path=image&label=class", None),
        ("?image=Image&label=class", {"label": "label"}),  # the specification comes first
        ("", "path=image, label=class"),
        ("?path=image", "label=class"),
        ("", {"image": "image", "label": "class"}),
    ],
)
def test_columns_by_name(folder: Path, spec: str, columns: str | dict[str, str] | None) -> None:
    dataset = load_dataset(f"csv:{table(folder, CHOSEN)}{spec}", columns=columns)
    assert dataset.classes == ("a", "b") and dataset.names[0] == "images/1.png"


def test_a_file_with_a_question_mark_in_its_name(folder: Path) -> None:
    file = table(folder, CHOSEN).rename(folder / "really?path=image.csv")
    dataset = load_dataset(f"csv:{file}?path=image&label=class")
    assert dataset.name == "really?path=image" and len(dataset) == 3


@pytest.mark.parametrize(
    ("spec", "columns", "message"),
    [
        (
            "?path=image&label=kind",
            None,
            "shop.csv, line 1: no column 'kind', which was chosen for label; it has image, ",
        ),
        ("?image", None, r"shop.csv\?image: after the \?, write path=NAME&label=NAME, with the names of your columns"),
        ("", "path=image,image=path", "columns 'path=image,image=path': write path=NAME,label=NAME"),
        ("", {"label": 3}, "columns .*'label': 3.*: write path"),
        ("", ["image", "class"], "columns .*: write path"),
        ("", {"photo": "image"}, "columns .*: write path"),
    ],
)
def test_wrong_columns(folder: Path, spec: str, columns, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(f"csv:{table(folder, CHOSEN)}{spec}", columns=columns)
    assert "\n" not in str(caught.value)


def test_only_tables_have_columns(folder: Path) -> None:
    for images, labels in (("emoji", None), (folder, None), (str(folder), None), (["a.png"], ["a"])):
        with pytest.raises(UsageError, match=r"--embed-columns / columns names columns of a table .* has none"):
            load_dataset(images, labels, columns="path=image")


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_a_column_role_may_contain_splits(folder: Path, held_out: str) -> None:
    file = table(folder, SPLIT.replace("split", "role").format("train", held_out, "Train", held_out))
    found = read_table(file, split="auto")
    assert found.roles == ["reference", "query", "reference", "query"] and "column 'role'" in found.notes[0]
    assert read_table(file, split=f"{held_out}:train").roles == ["query", "reference", "query", "reference"]
    assert read_table(file, split="loo").roles is None
    with pytest.raises(UsageError, match="has a column 'role' with train, val, test: choose references and queries"):
        read_table(table(folder, SPLIT.replace("split", "role").format("train", "val", "test", "val")), split="auto")
    with pytest.raises(UsageError, match="line 2: role 'train' is not one of query, reference, gallery"):
        read_table(table(folder, SPLIT.replace("split", "role").format("train", "query", "test", "val")), split="auto")


def test_metadata_of_a_folder(tmp_path: Path, make_image) -> None:
    root = tmp_path / "photos"
    for seed, name in enumerate(("train/1.png", "train/2.png", "3.png")):
        make_image(root / name, seed=seed)
    (root / "metadata.csv").write_text("file_name,text,label\ntrain/1.png,one,a\ntrain/2.png,two,a\n3.png,three,b\n")
    by_table, by_folder = load_dataset(f"csv:{root / 'metadata.csv'}"), load_dataset(root)
    assert by_folder.fingerprint == by_table.fingerprint and by_folder.name == by_table.name == "photos"
    assert by_folder.notes == ("classes are those of metadata.csv",) and by_table.notes == ()


def test_class_folders_come_before_metadata(make_folder) -> None:
    root = make_folder({"cat": 2, "dog": 2})
    (root / "metadata.csv").write_text("file_name,label,kind\ncat/000.png,a,x\ncat/001.png,b,x\ndog/000.png,a,y\n")
    assert load_dataset(root).classes == ("cat", "dog") and "metadata.csv is ignored" in load_dataset(root).notes[0]
    assert load_dataset(root, columns="label=kind").classes == ("x", "y")


@pytest.fixture
def splits(tmp_path: Path, make_image) -> Callable[..., Path]:
    """Write a folder of splits, each with two images and a table: ``splits(train="file_name,label\\n…")``."""

    def make(**tables: str) -> Path:
        root = tmp_path / "photos"
        for number, (name, content) in enumerate(tables.items()):
            for image in range(2):
                make_image(root / name / f"{image}.png", seed=2 * number + image)
            (root / name / "metadata.csv").write_text(content)
        return root

    return make


IN_SPLIT = "file_name,label\n0.png,a\n1.png,b\n"


def test_metadata_of_each_split(splits) -> None:
    root = splits(train=IN_SPLIT, test=IN_SPLIT)
    by_split = load_dataset(root)
    assert by_split.query_names == ("test/0.png", "test/1.png") and by_split.classes == ("a", "b")
    assert by_split.reference_names == ("train/0.png", "train/1.png") and by_split.name == "photos"
    assert by_split.notes[0] == "classes are those of metadata.csv" and "test/ are the queries" in by_split.notes[1]
    assert load_dataset(root, split="test:train").query_names == by_split.reference_names
    merged = load_dataset(root, split="loo")
    assert merged.leave_one_out and len(merged) == 4 and merged.notes[1] == "test/ and train/ are merged"
    same = root.parent / "all.csv"
    rows = [f"photos/{split}/{name},{split}" for split in ("test", "train") for name in ("0.png,a", "1.png,b")]
    same.write_text("\n".join(["path,label,split", *rows]))
    assert load_dataset(f"csv:{same}").fingerprint == by_split.fingerprint


def test_only_the_chosen_splits_need_labels(splits) -> None:
    root = splits(train=IN_SPLIT, val=IN_SPLIT, test="file_name\n0.png\n1.png\n")
    assert load_dataset(root, split="train:val").query_names == ("val/0.png", "val/1.png")
    with pytest.raises(UsageError, match=r"has metadata.csv in test/ and train/ and val/: choose references and quer"):
        load_dataset(root)
    with pytest.raises(UsageError, match=r"photos/test/metadata.csv, line 1: no column 'label'; "):
        load_dataset(root, split="train:test")


def test_sides_by_role_and_a_single_split(splits, make_image) -> None:
    root = splits(query=IN_SPLIT, gallery=IN_SPLIT)
    assert load_dataset(root).query_names == ("query/0.png", "query/1.png")
    one = splits(train="file_name,label\n0.png,a\n1.png,a\nsub/2.png,b\n")
    make_image(one / "train" / "sub" / "2.png", seed=9)
    for other in ("query", "gallery"):
        (one / other).rename(one.parent / other)
    assert load_dataset(one).leave_one_out and load_dataset(one).names[2] == "train/sub/2.png"


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("", IN_SPLIT, r"train/metadata.csv, line 1: no column 'path'"),
        ("label\na\nb\n", IN_SPLIT, r"train/metadata.csv, line 1: no column 'path'; .*, not 'label'"),
        (IN_SPLIT, "file_name,label\n0.png,\n", r"test/metadata.csv, line 2: column 'label' is empty"),
        (IN_SPLIT, "file_name,label\n,a\n", r"test/metadata.csv, line 2: column 'file_name' is empty"),
        ("file_name,label\n", "file_name,label\n", r"metadata.csv in test, train of folder .*photos names no images"),
    ],
)
def test_faults_of_a_splits_metadata_are_one_line(splits, train: str, test: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(splits(train=train, test=test))
    assert "\n" not in str(caught.value)


def test_metadata_that_is_missing_or_twice(splits) -> None:
    root = splits(train=IN_SPLIT, test=IN_SPLIT)
    (root / "metadata.csv").write_text("file_name,label\ntrain/0.png,a\n")
    with pytest.raises(UsageError, match=r"photos has metadata.csv and test/metadata.csv: keep one for all im"):
        load_dataset(root)
    (root / "metadata.csv").unlink()
    (root / "test" / "metadata.csv").unlink()
    with pytest.raises(UsageError, match=r"no metadata.csv in .*photos/test: add one, or choose the splits to use"):
        load_dataset(root)
    with pytest.raises(UsageError, match=r"split 'train:test': no metadata.csv in .*photos/test"):
        load_dataset(root, split="train:test")


def test_class_folders_come_before_metadata_of_splits(splits, make_image) -> None:
    columns = "file_name,label,kind\n"
    root = splits(train=f"{columns}cat/0.png,a,x\ndog/0.png,b,y\n", test=f"{columns}0.png,a,x\n")
    for name in ("train/cat/0", "train/dog/0", "test/cat/0"):
        make_image(root / f"{name}.png")
    found = load_dataset(root)
    assert "cat" in found.classes and "metadata.csv is ignored" in found.notes[0]
    assert load_dataset(root, columns="label=kind").classes == ("x", "y")


SPLIT = "path,label,split\nimages/1.png,a,{}\nimages/2.png,a,{}\nimages/deep/3.png,a,{}\nimages/1.png,a,{}\n"


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("held_out", HELD_OUT)
def test_a_column_split_equals_folders_of_its_values(folder: Path, make_image, training: str, held_out: str) -> None:
    found = read_table(table(folder, SPLIT.format(training, held_out, held_out.upper(), training)), split="auto")
    assert found.roles == ["reference", "query", "query", "reference"]
    for name in (training, held_out):
        make_image(folder / "photos" / name / "a" / "1.png")
    roles = dict(zip((held_out, training), scan_folder(folder / "photos", split="auto").roles or (), strict=True))
    if held_out > training:
        roles = dict(zip((training, held_out), roles.values(), strict=True))
    assert roles == {training: "reference", held_out: "query"}


@pytest.mark.parametrize(
    ("values", "split", "message"),
    [
        ("train train val test", "auto", "has a column 'split' with train, val, test: choose .* train:val / .*, or"),
        ("train training val val", "auto", "with train, training, val: choose references"),
        (
            "train train val val",
            "train:dev",
            "split 'train:dev': .*shop.csv has no 'dev' in its column 'split', only tr",
        ),
        ("train train val val", "train:val+train", "split 'train:val\\+train': train cannot be on both sides"),
    ],
)
def test_an_ambiguous_column_split(folder: Path, values: str, split: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_table(table(folder, SPLIT.format(*values.split())), split=split)


def test_sides_by_name(folder: Path) -> None:
    file = table(folder, SPLIT.format("A", "b", "c", "a"))
    found = read_table(file, split="b+C:a")
    assert found.roles == ["query", "reference", "reference", "query"] and found.notes == ()
    found = read_table(file, split="a:c")
    assert found.roles == ["reference", "query", "reference"] and len(found.source) == 3
    assert found.notes == ("left out: 1 image whose 'split' is not a or c",)
    with pytest.raises(UsageError, match=r"names two values of a column 'split', and .*shop.csv has no such column"):
        read_table(table(folder, "path,label\nimages/1.png,a\n"), split="a:b")
    with pytest.raises(UsageError, match=r"shop.csv has no 'a' in its column 'role', only query"):
        read_table(table(folder, "path,label,role\nimages/1.png,a,query\n"), split="a:b")


def test_rows_that_the_split_leaves_out_need_no_label(folder: Path) -> None:
    rows = "images/1.png,a,train\nimages/2.png,a,val\nimages/2.png,,test\n"
    assert list(read_table(table(folder, f"path,label,split\n{rows}"), split="train:val").class_names) == ["a", "a"]
    with pytest.raises(UsageError, match="line 4: column 'label' is empty"):
        read_table(table(folder, f"path,label,split\n{rows}"), split="loo")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such csv file: .*nowhere\.csv"):
        check_exists(f"csv:{tmp_path / 'nowhere.csv'}")


def test_a_wrong_folder_is_one_line_that_names_it(folder: Path, monkeypatch) -> None:
    rows = "".join(f"images/{number}.png,a\n" for number in (1, 2) for _ in range(100))
    elsewhere = folder / "lists"
    elsewhere.mkdir()
    file = table(elsewhere, f"path,label\n{rows}")
    with pytest.raises(UsageError) as caught:
        read_table(file, split="auto")
    text = str(caught.value)
    assert text == (
        f"none of the 200 images of csv file {file} (paths are relative to its folder) exists: "
        f"the first path is {elsewhere}/images/1.png"
    )
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="it exists relative to the current folder: move the csv there"):
        read_table(file, split="auto")
    assert len(read_table(table(folder, f"path,label\n{rows}"), split="auto").source) == 200


def test_missing_images_are_left_to_the_audit_if_one_exists(folder: Path) -> None:
    found = read_table(table(folder, "path,label\nimages/none.png,a\nimages/1.png,a\n"), split="auto")
    assert len(found.source) == 2 and "relative to its folder" in found.where
