"""Datasets whose items are dicts with an image and a class: Hugging Face's ``datasets.Dataset``, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.columns import Columns, find_columns
from embedcore.images.labels import titled
from embedcore.images.sources import LabelledImages, as_image
from embedcore.images.splits import table_sides
from embedcore.images.tables import rows_images, table_images
from embedcore.images.timm_sets import IndexedSource, expect_stable, pairs_images


def is_hub_dataset(dataset: Any) -> bool:
    """Return whether this is an object of Hugging Face's ``datasets``, of any kind."""
    return hasattr(dataset, "column_names") and hasattr(dataset, "cast_column")


def hub_images(dataset: Any, *, split: str, chosen: Mapping[str, str]) -> LabelledImages:
    """Return the images of a ``datasets.Dataset``, with the names of its classes.

    Encoded images are read as in a folder: upright, transparency on white. Columns of paths are read as those of a
    DataFrame. With a format or a transform, the image is that of ``dataset[i]``. See :func:`find_columns` for the
    columns, and :func:`table_sides` for ``role`` and ``split``.

    Raises UsageError for a ``DatasetDict``, a streamed dataset, and columns that are missing or ambiguous.
    """
    kind = type(dataset).__name__
    if isinstance(dataset, Mapping):
        raise UsageError(
            f"a {kind} has several splits: choose one, such as load_dataset(dataset[{next(iter(dataset), '')!r}])"
        )
    if not hasattr(dataset, "num_rows"):
        raise UsageError(f"an object of type {kind} can only be read in order: load it without streaming")
    names = list(dataset.column_names)
    found = find_columns(names, chosen, f"the {kind}", "it must have the columns image and label", first="image")
    used = {each: names[position] for each, position in found.items()}
    if not len(dataset):
        raise UsageError(f"the {kind} names no images: it has no rows")
    title = getattr(dataset.info, "dataset_name", None) or kind
    plain, feature = dataset.with_format(None), dataset.features[used["path"]]
    has_images = type(feature).__name__ == "Image"
    values: dict[str, Sequence[Any]] = {
        each: range(len(dataset)) if each == "path" and has_images else list(plain[name]) for each, name in used.items()
    }
    values["label"] = titled(values["label"], getattr(dataset.features[used["label"]], "names", None) or ())

    def place(row: int) -> str:
        return f"{title}#{row}"

    sides = table_sides(values, split, f"the {kind}", place)
    columns, rows = Columns(values, used), tuple(sides.rows)
    if not has_images and dataset.format["type"] is None:
        return table_images(columns, sides, place, title, f"the {kind}", Path())
    if dataset.format["type"] is None:
        encoded = dataset.cast_column(used["path"], type(feature)(decode=False))
        source = RecordSource(rows, title, encoded, used["path"], portable=bool(dataset.cache_files))
    else:
        source = RecordSource(rows, title, dataset, used["path"], portable=False)
        expect_stable(source)
    return rows_images(columns, sides, place, title, f"the {kind}", source)


def dict_images(dataset: Any, *, chosen: Mapping[str, str]) -> LabelledImages:
    """Return the images of a dataset object whose items are pairs (see :func:`pairs_images`) or dicts."""
    kind = type(dataset).__name__
    try:
        item = dataset[0]
    except Exception:  # an error in the user's code, which pairs_images reports
        item = None
    if not isinstance(item, Mapping):
        if chosen:
            raise UsageError(f"columns name keys of dicts, but items of the {kind} are not dicts")
        return pairs_images(dataset, kind, kind, f"the {kind}", portable=False)
    names = list(item)
    found = find_columns(
        names, chosen, f"items of the {kind}", "they need the keys image and label", word="key", first="image"
    )
    pairs = KeyedPairs(dataset, names[found["path"]], names[found["label"]])
    return pairs_images(pairs, kind, kind, f"the {kind}", portable=False)


@dataclass(frozen=True)
class KeyedPairs:
    """A dataset of dicts as one of pairs."""

    dataset: Any
    image: Any
    """Key of the image in an item."""
    label: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        item = self.dataset[index]
        return item[self.image], item[self.label]

    @property
    def class_to_idx(self) -> Mapping[str, Any]:
        """The numbers of the classes, if the dataset names them."""
        return getattr(self.dataset, "class_to_idx", {})


@dataclass(frozen=True)
class RecordSource(IndexedSource):
    """Rows of a ``datasets.Dataset``: encoded images, or what its format or transform returns."""

    column: str

    def content(self, index: int) -> bytes | Image.Image:
        cell = self.dataset[self.items[index]][self.column]
        if cell is None:
            raise ValueError("the image is missing")
        if not isinstance(cell, Mapping):
            try:
                return as_image(cell)
            except (TypeError, ValueError) as error:  # an error of the whole dataset, such as a normalisation
                raise UsageError(f"{self.name(index)}: {error}") from error
        content = cell.get("bytes")
        return bytes(content) if content is not None else Path(cell["path"]).read_bytes()
