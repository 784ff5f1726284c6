"""Rows of docs/datasets.md: csv files, lists and DataFrames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dataset_kinds import CATS_AND_DOGS, NEGATIVE, PHOTOS, SEVERAL, Arguments, Kind, photos

LABELS = ["cat", "cat", "dog", "dog", "dog"]


def csv_of(content: str | bytes, **options: Any) -> Callable[[Path], Arguments]:
    """A csv file of this content beside the photos."""

    def make(folder: Path) -> Arguments:
        photos(folder)
        file = folder / "shop.csv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return Arguments(f"csv:{file}", options=options)

    return make


def csv_with(header: str, *fields: str, **options: Any) -> Callable[[Path], Arguments]:
    """A csv file with one line for each of the first photos: its path, a comma, and these fields."""
    rows = [f"{path},{field}" for path, field in zip(PHOTOS, fields, strict=False)]
    return csv_of("\n".join([f"path,{header}", *rows, ""]), **options)


CSV = [
    Kind(
        "lines of `path,label`",
        csv_with("label", *LABELS),
        "one set, leave-one-out; paths are relative to the folder of the csv",
        CATS_AND_DOGS,
    ),
    Kind(
        "columns in another order or in capitals, further columns, a byte order mark, empty lines",
        csv_of("\ufeffWeight,LABEL, Path\n1,cat,cat/0.png\n\n2,cat,cat/1.png\n3,dog,dog/0.png\n"),
        "the columns are found by name, others are ignored",
        {"cat": 2, "dog": 1},
    ),
    Kind(
        "other usual names: `file`, `filename`, `file_name`, `filepath`, `image`, `image_path` or `img`; `class`, "
        "`class_name`, `category` or `target`",
        csv_of("File_Name,weight,Category\ncat/0.png,1,cat\ncat/1.png,2,cat\ndog/0.png,3,dog\n"),
        "the columns path and label, if no other column may be meant",
        {"cat": 2, "dog": 1},
    ),
    Kind(
        "two columns that may be meant",
        csv_of("image,class,category\ncat/0.png,cat,pet\n"),
        refused="shop.csv, line 1: 'class' or 'category' may be the label: choose a column, such as "
        "--embed-columns label=class / columns='label=class'",
    ),
    Kind(
        "the same with `--embed-columns label=category`, or `'csv:FILE?path=image&label=category'`",
        csv_of("image,class,category\ncat/0.png,a,cat\ncat/1.png,b,cat\ndog/0.png,c,dog\n", columns="label=category"),
        "the columns that are named; others are found by their names",
        {"cat": 2, "dog": 1},
    ),
    Kind(
        'a comma inside quotes: `"salt, pepper"`',
        csv_with("label", '"salt, pepper"', '"salt, pepper"', '"salt, vinegar"'),
        "one label",
        {"salt, pepper": 2, "salt, vinegar": 1},
    ),
    Kind(
        "a comma without quotes: `salt, pepper`",
        csv_with("label", "cat", "salt, pepper", "salt, vinegar"),
        refused="shop.csv, line 3: 3 fields for 2 columns (path,label): "
        'put a field that contains a comma in quotes ("salt, pepper")',
    ),
    Kind(
        "a line with too few fields",
        csv_with("label,role", "cat,query", "cat"),
        refused="shop.csv, line 3: 2 fields for 3 columns (path,label,role)",
    ),
    Kind(
        "a quote that is never closed",
        csv_with("label", "cat", '"cat', "dog", "dog"),
        refused="shop.csv, line 3: not readable as csv (unexpected end of data): is a quote not closed?",
    ),
    Kind(
        "a quote that is closed on a later line",
        csv_with("label", "cat", '"cat', "dog", 'dog"', "dog"),
        refused="shop.csv, line 3: column 'label' continues to line 5: is a quote not closed?",
    ),
    Kind(
        "two such quotes, the second one at the start of a label",
        csv_with("label", "cat", '"cat', "dog", '"dog', "dog"),
        refused="shop.csv, line 3: not readable as csv (',' expected after '\"'): is a quote not closed?",
    ),
    Kind(
        "UTF-16 or UTF-32 with a byte order mark",
        csv_of("path,label\ncat/0.png,Käse\ncat/1.png,Käse\ndog/0.png,dog\n".encode("utf-16")),
        "read in that encoding",
        {"Käse": 2, "dog": 1},
    ),
    Kind(
        "another encoding, such as Windows-1252",
        csv_of("path,label\ncat/0.png,cat\ncat/1.png,Käse\n".encode("cp1252")),
        refused="shop.csv, line 3: byte 0xe4 is not UTF-8: save the file as UTF-8",
    ),
    Kind(
        "UTF-16 without a byte order mark",
        csv_of("path,label\ncat/0.png,cat\n".encode("utf-16-le")),
        refused="shop.csv, line 1: a NUL byte is not valid text: save the file as UTF-8",
    ),
    Kind(
        "columns separated by semicolons or tabs",
        csv_of("path;label\ncat/0.png;cat\n"),
        refused="shop.csv, line 1: no column 'path'; the first line must name the columns path,label[,role][,split], "
        "not 'path;label'; separate the columns by commas",
    ),
    Kind(
        "two columns `label`",
        csv_with("label,Label", "cat,1", "dog,2"),
        refused="shop.csv, line 1: two columns 'label': rename one of them",
    ),
    Kind(
        "a line without a label",
        csv_with("label", "cat", " ", "dog"),
        refused="shop.csv, line 3: column 'label' is empty",
    ),
    Kind(
        "a label `nan` (also `NaN`, `<NA>`, `NaT`, `#N/A`)",
        csv_with("label", "cat", "nan", "dog"),
        refused="shop.csv, line 3: the label is missing ('nan'): leave the image out, or give it a class",
    ),
    Kind(
        "a label `None` (also `NA`, `N/A`, `null`, in any case)",
        csv_with("label", "cat", "cat", "None", "None", "NA"),
        "a class, since it may be a real name",
        {"cat": 2, "None": 2, "NA": 1},
        note="class 'None' has 2 images: if the name means a missing label, leave them out",
    ),
    Kind(
        "a label `-1`, or another negative number",
        csv_with("label", "0", "-1", "1"),
        refused=f"shop.csv, line 3: {NEGATIVE}",
    ),
    Kind(
        "several labels or a box in one field: `[0, 1]`, `{'box': …}`, `0 .5 .5 .2 .3`",
        csv_with("label", "cat", "0 .5 .5 .2 .3", "dog"),
        refused=f"shop.csv, line 3: the label is '0 .5 .5 .2 .3': {SEVERAL}",
    ),
    Kind(
        "a column `role` with `query` and `reference` (or `gallery`)",
        csv_with("label,role", "cat,query", "cat,reference", "dog,Query", "dog,gallery"),
        "queries retrieve references",
        {"cat": 2, "dog": 2},
        queries=2,
    ),
    Kind(
        "another word in the column `role`",
        csv_with("label,role", "cat,query", "cat,probe"),
        refused="shop.csv, line 3: role 'probe' is not one of query, reference, gallery",
    ),
    Kind(
        "a column `role` with `train` and one of `val`, `test`, …",
        csv_with("label,role", "cat,train", "cat,test", "dog,train", "dog,test"),
        "as a column `split` with these",
        {"cat": 2, "dog": 2},
        queries=2,
        note="test are the queries, train the references (column 'role'; --embed-split loo / split='loo' makes them "
        "one set)",
    ),
    Kind(
        "a column `split` with `train` (or `training`) and one of `val`, `valid`, `validation`, `test`, `testing`",
        csv_with("label,split", "cat,train", "cat,val", "dog,Train", "dog,val", "dog,val"),
        "as folders of these names: held-out images are the queries, training images the references",
        CATS_AND_DOGS,
        queries=3,
        note="val are the queries, train the references (column 'split'; --embed-split loo / split='loo' makes them "
        "one set)",
    ),
    Kind(
        "the same with `--embed-split loo`",
        csv_with("label,split", "cat,train", "cat,val", "dog,train", "dog,val", "dog,val", split="loo"),
        "one set, leave-one-out",
        CATS_AND_DOGS,
    ),
    Kind(
        "a column `split` with `train`, `val` and `test`",
        csv_with("label,split", "cat,train", "cat,val", "dog,train", "dog,test"),
        refused="shop.csv has a column 'split' with train, val, test: choose references and queries, such as "
        "--embed-split train:val / split='train:val', or use all of them as one set with --embed-split loo / "
        "split='loo'",
    ),
    Kind(
        "the same with `--embed-split train+val:test`, or other values of the column",
        csv_with("label,split", "cat,train", "cat,test", "dog,val", "dog,test", "dog,extra", split="train+val:test"),
        "the references and queries that are named",
        {"cat": 2, "dog": 2},
        queries=2,
        note="left out: 1 image whose 'split' is not train or val or test",
    ),
    Kind(
        "a column `split` with `query` and `gallery` beside `train`",
        csv_with("label,split", "cat,query", "cat,gallery", "dog,query", "dog,gallery", "dog,train"),
        "as folders of these names: the two sides, without the rest",
        {"cat": 2, "dog": 2},
        queries=2,
        note="left out: 1 image whose 'split' is not query or gallery",
    ),
    Kind(
        "a column `split` with other values",
        csv_with("label,split", "cat,fold 1", "cat,fold 2", "dog,fold 1", "dog,fold 2"),
        "one set, leave-one-out",
        {"cat": 2, "dog": 2},
        note="the column 'split' is ignored: its values ('fold 1', 'fold 2') are not train and test",
    ),
    Kind(
        "columns `role` and `split`",
        csv_with("label,role,split", "cat,query,train", "cat,gallery,val", "dog,query,val", "dog,gallery,train"),
        "`role` decides",
        {"cat": 2, "dog": 2},
        queries=2,
        note="the column 'split' is ignored: the column 'role' decides",
    ),
    Kind(
        "paths none of which exists",
        csv_of("path,label\nnowhere/0.png,cat\nnowhere/1.png,cat\n"),
        refused="(paths are relative to its folder) exists: the first path is nowhere/0.png",
    ),
]


def labels_of(make_labels: Callable[[], Any], **options: Any) -> Callable[[Path], Arguments]:
    """A list of five photos with these labels."""
    return lambda folder: Arguments(photos(folder), make_labels(), options)


def tensor_of(values: Any) -> Callable[[], Any]:
    def make() -> Any:
        import torch

        return torch.tensor(values)

    return make


def series_of(values: Any, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        import pandas

        return pandas.Series(values, **options)

    return make


def frame_of(**columns: Any) -> Callable[[Path], Arguments]:
    """A DataFrame of five photos with these columns."""

    def make(folder: Path) -> Arguments:
        import pandas

        return Arguments(pandas.DataFrame({"path": photos(folder), **columns}))

    return make


def shuffled(folder: Path) -> Arguments:
    import pandas

    frame = pandas.DataFrame({"path": photos(folder), "label": LABELS}).iloc[[4, 0, 3, 1, 2]]
    return Arguments(frame.path, frame.label)


def in_their_own_folder(dataset: Any) -> None:
    assert [dataset.classes[label] for label in dataset.labels] == [name.split("/")[-2] for name in dataset.names]


MISSING = "image 1 of the list: the label is missing ({}): leave the image out, or give it a class"
LISTS = [
    Kind("labels as text, or as numbers of any kind", labels_of(lambda: LABELS), "a class each", CATS_AND_DOGS),
    Kind(
        "labels in an array or tensor [n] or [n, 1], or as scalars of these",
        labels_of(lambda: [tensor_of(7)(), np.int32(7), np.array([8]), tensor_of([8])(), 8.0]),
        "their values: 7, 7.0 and a tensor of 7 are one class",
        {"7": 2, "8": 3},
    ),
    Kind("labels with `None`", labels_of(lambda: ["cat", None, *LABELS[2:]]), refused=MISSING.format("None")),
    Kind(
        "labels with NaN, or the text `nan`",
        labels_of(lambda: [0, float("nan"), 1, 1, 1]),
        refused=MISSING.format("nan"),
    ),
    Kind(
        "a Series with pandas' NA or NaT",
        labels_of(series_of([0, None, 1, 1, 1], dtype="Int64")),
        refused=MISSING.format("<NA>"),
    ),
    Kind(
        "a masked array",
        labels_of(lambda: np.ma.array([0, 5, 1, 1, 1], mask=[0, 1, 0, 0, 0])),
        refused=MISSING.format("masked"),
    ),
    Kind(
        "negative numbers",
        labels_of(lambda: np.array([0, -1, 1, 1, 1])),
        refused=f"image 1 of the list: {NEGATIVE}",
    ),
    Kind(
        "numbers with a fraction",
        labels_of(lambda: [0, 0.5, 1, 1, 1]),
        refused="image 1 of the list: the label 0.5 is not a whole number: "
        "use the number of a class, or its name as text",
    ),
    Kind(
        "one-hot rows, or several attributes of each image",
        labels_of(tensor_of([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])),
        refused=f"image 0 of the list: the label is a Tensor of shape [2]: {SEVERAL}",
    ),
    Kind(
        "a list or a dict for each image",
        labels_of(lambda: [{"box": [0, 0, 5, 5], "label": 1}] * 5),
        refused=f"image 0 of the list: the label is a dict: {SEVERAL}",
    ),
    Kind(
        "Series in another order than their index",
        shuffled,
        "images and labels are paired by position",
        CATS_AND_DOGS,
        check=in_their_own_folder,
    ),
    Kind(
        "a DataFrame, a text, a dict or a set for labels",
        labels_of(lambda: series_of(LABELS, name="label")().to_frame()),
        refused="labels is a DataFrame: a list with one entry for each image is needed",
    ),
    Kind("more or fewer labels than images", labels_of(lambda: LABELS[1:]), refused="5 images but 4 labels"),
]

FRAMES = [
    Kind(
        "columns path, label and perhaps role or split",
        frame_of(label=LABELS, split=["train", "test", "train", "test", "test"]),
        "as in a csv file; paths are relative to the current folder",
        CATS_AND_DOGS,
        queries=3,
        note="test are the queries, train the references (column 'split'; --embed-split loo / split='loo' makes them "
        "one set)",
    ),
    Kind(
        "other names of columns",
        lambda folder: Arguments(frame_of(target=LABELS)(folder).images.rename(columns={"path": "filename"})),
        'found as in a csv file, or named: `load_dataset(frame, columns={"path": "photo", "label": "kind"})`',
        CATS_AND_DOGS,
    ),
    Kind(
        "a missing label: None, NaN, NaT, pandas' NA, empty text",
        frame_of(label=["cat", None, "dog", "dog", "dog"]),
        refused="row 1 of the DataFrame: column 'label' is empty",
    ),
    Kind(
        "numbers that became floats because of a missing value (since dropped): 1.0",
        frame_of(label=[1.0, 1.0, 2.0, 2.0, 2.0]),
        "the classes 1 and 2",
        {"1": 2, "2": 3},
    ),
    Kind(
        "the text `nan` of `astype(str)`",
        frame_of(label=["cat", "nan", "dog", "dog", "dog"]),
        refused="row 1 of the DataFrame: the label is missing ('nan'): leave the image out, or give it a class",
    ),
]
