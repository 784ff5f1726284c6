"""Rows of docs/datasets.md: Parquet, Arrow and tar files with many images each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
from dataset_kinds import CATS_AND_DOGS, NEGATIVE, PHOTOS, Arguments, Kind, photos
from packed_images import Sample, members_of, table_of, write_table, write_tar

CLASSES = ["cat", "dog"]


def samples(folder: Path) -> list[Sample]:
    files = zip(PHOTOS, photos(folder.with_name(f"{folder.name}-files")), strict=True)
    return [Sample(name.replace("/", "-")[:-4], file.read_bytes(), name[:3]) for name, file in files]


def tables(
    *names: str, labels: Sequence[Any] | None = None, image: str = "image", label: str = "label", options: Any = None,
    **shape: Any,
) -> Callable[[Path], Arguments]:  # fmt: skip
    """The photos in these files, the first of them in the first file, and so on in turn."""

    def make(folder: Path) -> Arguments:
        rows = samples(folder)
        if labels is not None:
            rows = [replace(row, label=each) for row, each in zip(rows, labels, strict=True)]
        for place, name in enumerate(names):
            some = slice(place, None, len(names))
            more = {key: value[some] if key not in ("classes", "plain") else value for key, value in shape.items()}
            table = table_of(rows[some], **more)
            columns = [{"image": image, "label": label}.get(column, column) for column in table.column_names]
            renamed = table.rename_columns(columns).replace_schema_metadata(table.schema.metadata)
            write_table(folder / name, renamed)
        return Arguments(folder, options=options or {})

    return make


def tars(
    *names: str, label: str = "cls", change: Callable[[dict[str, bytes]], Any] = dict
) -> Callable[[Path], Arguments]:
    """The photos in these tar files, in turn; ``change`` returns other members of the first."""

    def make(folder: Path) -> Arguments:
        rows = samples(folder)
        for place, name in enumerate(names):
            members = members_of(rows[place :: len(names)], label)
            write_tar(folder / name, members if place else change(members))
        return Arguments(folder)

    return make


def truncated(make: Callable[[Path], Arguments], share: float) -> Callable[[Path], Arguments]:
    """The same with the first file cut off."""

    def cut(folder: Path) -> Arguments:
        arguments = make(folder)
        file = min(folder.iterdir())
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        return arguments

    return cut


def of_two_schemas(folder: Path) -> Arguments:
    rows = samples(folder)
    write_table(folder / "a.parquet", table_of(rows[:3], classes=CLASSES))
    write_table(folder / "b.parquet", table_of(rows[3:]))
    return Arguments(folder)


def of_paths(folder: Path) -> Arguments:
    write_table(folder / "a.parquet", pyarrow.table({"image": ["1.png", "2.png"], "label": ["a", "b"]}))
    return Arguments(folder)


def of_two_kinds(folder: Path) -> Arguments:
    tars("a.tar")(folder)
    return tables("b.parquet")(folder)


def beside_class_folders(folder: Path) -> Arguments:
    photos(folder)
    return tables("a.parquet", labels=list("xxyyy"))(folder)


SHARDS = [
    Kind(
        "`*.parquet` (or one file), with an image (binary, or a struct with `bytes`) and a label (text or number)",
        tables("a.parquet", "b.parquet"),
        "one set, leave-one-out; in the order of the file names and rows",
        CATS_AND_DOGS,
    ),
    Kind(
        "`*.arrow`, as files or streams (`Dataset.save_to_disk`)",
        tables("a.arrow", "b.stream", plain=True),
        "the same",
        CATS_AND_DOGS,
    ),
    Kind(
        "a label with the class names of Hugging Face (`ClassLabel`)",
        tables("a.parquet", classes=CLASSES),
        "classes have these names",
        CATS_AND_DOGS,
    ),
    Kind(
        "names that begin with `train-` and `validation-` (or `test-`), in the folder, `data/`, `train/` or `test/`",
        tables("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        "held-out images are the queries, training images the references",
        CATS_AND_DOGS,
        queries=2,
        note="validation are the queries, train the references (--embed-split loo / split='loo' makes them one set)",
    ),
    Kind(
        "the same with `train-`, `validation-` and `test-`",
        tables("train-0.parquet", "validation-0.parquet", "test-0.parquet"),
        refused="has shards of test and train and validation: choose references and queries, such as --embed-split "
        "train:test / split='train:test', or use all of them as one set with --embed-split loo / split='loo'",
    ),
    Kind(
        "the same with `--embed-split train+test:validation`",
        tables("train-0.parquet", "validation-0.parquet", "test-0.parquet", options={"split": "train+test:validation"}),
        "the references and queries that are named",
        CATS_AND_DOGS,
        queries=2,
    ),
    Kind(
        "a column `split` or `role`",
        tables("a.parquet", split=["train", "test", "train", "test", "test"]),
        "as in a csv file",
        CATS_AND_DOGS,
        queries=3,
        note="test are the queries, train the references (column 'split'; --embed-split loo / split='loo' makes them "
        "one set)",
    ),
    Kind(
        "other names of columns, with `--embed-columns label=kind`",
        tables("a.parquet", image="jpg", label="kind", options={"columns": "label=kind"}),
        "the only column of images, and the one that is named",
        CATS_AND_DOGS,
    ),
    Kind(
        "no column of images",
        of_paths,
        refused="a.parquet: no column of images (binary, or a struct with bytes); its columns are image, label",
    ),
    Kind(
        "no labels",
        tables("a.parquet", label="caption"),
        refused="a.parquet: no column 'label'; the columns image and label are needed, not 'image,caption'; or name "
        "yours: --embed-columns label=NAME / columns='label=NAME'",
    ),
    Kind(
        "files with other columns, types or classes",
        of_two_schemas,
        refused="b.parquet: its label (label, string) is not that of a.parquet (label, int64, cat, dog): keep files of "
        "one schema",
    ),
    Kind("a class `-1`", tables("a.parquet", labels=[0, 0, -1, 1, 1]), refused=f"a.parquet#2: {NEGATIVE}"),
    Kind(
        "a missing class",
        tables("a.parquet", labels=["a", "a", None, "b", "b"]),
        refused="a.parquet#2: column 'label' is empty",
    ),
    Kind(
        "a file that is cut off",
        truncated(tables("a.parquet"), 0.9),
        refused="a.parquet cannot be read: Parquet magic bytes not found in footer",
    ),
    Kind(
        "a missing file among `NAME-00000-of-00003` and so on",
        tables("train-00000-of-00003.parquet", "train-00002-of-00003.parquet"),
        refused="2 of 3 shards, no train-00001-of-00003.parquet",
    ),
    Kind(
        "`*.tar` of WebDataset: `KEY.jpg` with `KEY.cls`, `KEY.json` (`label` or another usual name) or `KEY.txt`",
        tars("train-0.tar", "test-0.tar", label="json"),
        "read in place; the class is the text, or the value in the JSON (`--embed-columns label=NAME` names another)",
        CATS_AND_DOGS,
        queries=2,
        note="test are the queries, train the references (--embed-split loo / split='loo' makes them one set)",
    ),
    Kind(
        "further members of a key, such as `KEY.mask.png`, and keys without an image",
        tars("a.tar", change=lambda members: {**members, "cat-0.mask.png": b"x", "notes.txt": b"x"}),
        "ignored",
        CATS_AND_DOGS,
        note="left out: 1 sample without an image that can be read",
    ),
    Kind(
        "a key without a class",
        tars("a.tar", change=lambda members: {name: members[name] for name in members if name != "dog-1.cls"}),
        refused="a.tar/dog-1: no class: dog-1.cls, dog-1.json with 'label' or dog-1.txt is needed (--embed-columns "
        "label=NAME / columns='label=NAME' names another key)",
    ),
    Kind(
        "two images of one key",
        tars("a.tar", change=lambda members: {**members, "dog-1.jpg": b"x"}),
        refused="a.tar/dog-1: one image of each key is needed, not png, jpg",
    ),
    Kind(
        "a tar file that is cut off or damaged",
        truncated(tars("a.tar"), 0.3),
        refused="a.tar cannot be read as tar file: it is cut off",
    ),
    Kind("files of different kinds", of_two_kinds, refused="2 shards are of the kinds .parquet and .tar: keep one"),
    Kind(
        "shards in a folder that has images too", beside_class_folders, "the images; shards are ignored", CATS_AND_DOGS
    ),
]
