"""Galleries: what models retrieve, from the neighbours in the cache folder and the images of the dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcore.errors import EmbedcoreError
from embedcore.report.gallery.selection import Labels, limited, page_data, select
from embedcore.results.neighbours import KeptNeighbours, chosen, find, keys_of

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.results.leaderboard import Leaderboard

_DATASET_SETTINGS = ("split", "columns", "max_classes", "max_per_class", "seed", "bad_images", "max_megapixels")
_log = logging.getLogger(__name__)

Pictures = Callable[[Iterable[int]], Iterable[tuple[int, bytes]]]
"""Yields (place, WebP) of images by their places in the dataset, without those that cannot be read."""


@dataclass(frozen=True)
class Gallery:
    """The neighbours that models found in a dataset, with its labels and pictures."""

    labels: Labels
    found: Mapping[str, KeptNeighbours]
    pictures: Pictures


def gallery_of(
    board: Leaderboard,
    cache: Path,
    load: Callable[[], Dataset | None],
    asked: Collection[str] = (),
    store: PixelStore | None = None,
) -> Gallery | None:
    """Return the gallery of the models that a report shows, as far as the cache has their neighbours, or None.

    `load` returns the board's dataset if it is on this machine; it is called only if there are neighbours. `store`: the
    dataset's pixels, if available.
    """
    if board.unlabelled:  # its classes are its images
        return None
    fingerprint = board.dataset.get("fingerprint")
    results = {row.result.model: row.result for row in board.by_acc}
    models = chosen(results.values(), asked)
    found = find(cache, keys_of((results[model] for model in models), str(fingerprint)))
    dataset = load() if found else None
    if dataset is None or dataset.fingerprint != fingerprint:
        return None
    from embedcore.images.thumbnails import thumbnails  # takes long to import, and is not needed without a gallery

    queries, references = np.flatnonzero(dataset.is_query), np.flatnonzero(dataset.is_reference)
    labels = Labels(dataset.names, dataset.titles, dataset.labels, queries, references)
    return Gallery(labels, found, lambda places: thumbnails(dataset, places, store))


def gallery_data(board: Leaderboard, gallery: Gallery, asked: Collection[str] = ()) -> dict[str, Any] | None:
    """Return what a page shows of a gallery (see `page_data`), None if none of its models is on the board."""
    selection = select(board, gallery.labels, gallery.found, asked)
    return None if selection is None else page_data(selection, limited(gallery.pictures(selection.images())))


def dataset_of(settings: Mapping[str, Any], cache: Path) -> Dataset | None:
    """Return the dataset that a run's settings name, if it is on this machine: a folder, a table, the built-in images.

    Settings are untrusted input: they cause no download and run no code of a library.
    """
    from embedcore.images.load_dataset import load_dataset
    from embedcore.images.timm_sets import SCHEMES

    spec = settings.get("dataset")
    if not isinstance(spec, str) or spec.startswith(tuple(f"{scheme}/" for scheme in SCHEMES)):
        return None
    options = {name: settings[name] for name in _DATASET_SETTINGS if name in settings}
    try:
        return load_dataset(spec, cache_dir=cache, **options)
    except (EmbedcoreError, OSError, TypeError) as error:
        _log.warning("the images of %s are not available (%s)", spec, error)
        return None
