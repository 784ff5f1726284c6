"""Rows of docs/datasets.md: Hugging Face's ``datasets.Dataset``."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset_kinds import CATS_AND_DOGS, NEGATIVE, PHOTOS, Arguments, Kind, photos
from dataset_kinds_torch import upright
from PIL import Image

NUMBERS = [0, 0, 1, 1, 1]


def encoded(folder: Path, *, sideways: bool = False) -> list[dict[str, Any]]:
    """The photos as ``datasets.Image`` keeps them, with an EXIF orientation if wanted."""
    exif = Image.Exif()
    if sideways:
        exif[0x0112] = 6
    cells = []
    for path in photos(folder):
        buffer = io.BytesIO()
        Image.open(path).save(buffer, "PNG", exif=exif)
        cells.append({"bytes": buffer.getvalue(), "path": None})
    return cells


def hub(
    image: str = "image", label: str = "label", labels: Any = NUMBERS, change: Callable[[Any], Any] | None = None,
    sideways: bool = False, options: Any = None, **more: Any,
) -> Callable[[Path], Arguments]:  # fmt: skip
    """A Dataset of five photos with these columns and named classes."""

    def make(folder: Path) -> Arguments:
        import datasets

        features = datasets.Features(
            {image: datasets.Image(), label: datasets.ClassLabel(names=["cat", "dog"])}
            | {name: datasets.Value("string") for name in more}
        )
        columns = {image: encoded(folder, sideways=sideways), label: labels, **more}
        dataset = datasets.Dataset.from_dict(columns, features=features)
        return Arguments(change(dataset) if change else dataset, options=options or {})

    return make


def from_frame(folder: Path) -> Arguments:
    import datasets
    import pandas

    frame = pandas.DataFrame({"file_name": map(str, photos(folder)), "class": [name[:3] for name in PHOTOS]})
    return Arguments(datasets.Dataset.from_pandas(frame))


def several(folder: Path) -> Arguments:
    import datasets

    return Arguments(datasets.DatasetDict(train=hub()(folder).images))


HUB = [
    Kind(
        "columns `image` (or `img`, …) and `label` (or another usual name)",
        hub(image="img"),
        "one set, leave-one-out; classes have the names of the `ClassLabel`",
        CATS_AND_DOGS,
    ),
    Kind(
        "images with an EXIF orientation, transparency or deep grey levels",
        hub(sideways=True),
        "encoded images are read as files: upright, on white",
        CATS_AND_DOGS,
        check=upright,
    ),
    Kind(
        "several columns of labels, such as `fine_label` and `coarse_label`",
        hub(label="fine_label", coarse_label=list("abbab")),
        refused="the Dataset: no column 'label'; it must have the columns image and label, not "
        "'image,fine_label,coarse_label'; or name yours: --embed-columns label=NAME / columns='label=NAME'",
    ),
    Kind(
        'the same with `columns={"label": "fine_label"}`',
        hub(label="fine_label", coarse_label=list("abbab"), options={"columns": {"label": "fine_label"}}),
        "the column that is named",
        CATS_AND_DOGS,
    ),
    Kind(
        "a column `split` or `role`",
        hub(split=["train", "test", "train", "test", "test"]),
        "as in a csv file",
        CATS_AND_DOGS,
        queries=3,
        note="test are the queries, train the references (column 'split'; --embed-split loo / split='loo' makes them "
        "one set)",
    ),
    Kind(
        "columns of paths, as `Dataset.from_pandas` makes them",
        from_frame,
        "as in a DataFrame; paths are relative to the current folder",
        CATS_AND_DOGS,
    ),
    Kind(
        'a transform or a format (`with_transform`, `with_format("torch")`)',
        hub(change=lambda dataset: dataset.with_format("torch")),
        "what `dataset[i]` returns is the image",
        CATS_AND_DOGS,
    ),
    Kind("a class `-1`", hub(labels=[0, 0, -1, 1, 1]), refused=f"Dataset#2: {NEGATIVE}"),
    Kind("a missing class", hub(labels=[0, 0, None, 1, 1]), refused="Dataset#2: column 'label' is empty"),
    Kind(
        "a `DatasetDict`",
        several,
        refused="a DatasetDict has several splits: choose one, such as load_dataset(dataset['train'])",
    ),
    Kind(
        "a streamed dataset (`streaming=True`)",
        hub(change=lambda dataset: dataset.to_iterable_dataset()),
        refused="an object of type IterableDataset can only be read in order: load it without streaming",
    ),
]
