"""Galleries: what models retrieve, from the session's dataset, the cache folder, or the file of an earlier report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcore.errors import EmbedcoreError
from embedcore.report.gallery.selection import Labels, Selection, limited, select
from embedcore.results.neighbours import KeptNeighbours, chosen, find, keys_of

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.results.leaderboard import Leaderboard

_DATASET_SETTINGS = ("split", "max_classes", "max_per_class", "seed", "bad_images", "max_megapixels")
_log = logging.getLogger(__name__)

Pictures = Callable[[Iterable[int]], Iterable[tuple[int, bytes]]]
"""Yields (place, WebP) of images by their places in the dataset, without those that cannot be read."""


@dataclass(frozen=True)
class Gallery:
    """The neighbours that models found in a dataset, with its labels and pictures."""

    fingerprint: str
    """Of the dataset."""
    labels: Labels
    found: Mapping[str, KeptNeighbours]
    keys: Mapping[str, str]
    """Of the models in `found`, see `embedcore.results.neighbours.key_of`."""
    pictures: Pictures


@dataclass(frozen=True)
class ShownGallery:
    """What a page shows of a gallery."""

    gallery: Gallery
    selection: Selection
    pictures: Mapping[int, bytes]


def gallery_of(
    dataset: Dataset, found: Mapping[str, KeptNeighbours], keys: Mapping[str, str], store: PixelStore | None = None
) -> Gallery:
    """Return the gallery of a dataset whose images can be read; `store`: its pixels, if available."""
    from embedcore.images.thumbnails import thumbnails

    queries, references = np.flatnonzero(dataset.is_query), np.flatnonzero(dataset.is_reference)
    labels = Labels(dataset.names, dataset.classes, dataset.labels, queries, references)
    return Gallery(dataset.fingerprint, labels, found, keys, lambda places: thumbnails(dataset, places, store))


def session_gallery(
    board: Leaderboard, dataset: Dataset, cache: Path, asked: Collection[str], store: PixelStore | None = None
) -> Gallery | None:
    """Return the gallery of the models that a report shows, as far as the cache has their neighbours, or None."""
    keys = _wanted(board, asked)
    found = find(cache, keys)
    return gallery_of(dataset, found, keys, store) if found else None


def saved_gallery(
    board: Leaderboard,
    cache: Path,
    earlier: Sequence[Gallery],
    load: Callable[[], Dataset | None],
    asked: Collection[str] = (),
) -> Gallery | None:
    """Return the gallery of a saved run from `earlier` galleries and the cache, or None if they have nothing of it.

    `load` returns the run's dataset, if available; it is called only if no earlier gallery has all models.
    """
    keys = _wanted(board, asked)
    fingerprint = board.dataset.get("fingerprint")
    same = [gallery for gallery in earlier if gallery.fingerprint == fingerprint]
    found = find(cache, keys)
    for gallery in same:
        found |= {model: each for model, each in gallery.found.items() if keys.get(model) == gallery.keys.get(model)}
    found = {model: found[model] for model in keys if model in found}
    if not found:
        return None
    complete = next((gallery for gallery in same if found.keys() <= gallery.found.keys()), None)
    if complete is None:
        dataset = load()
        if dataset is not None and dataset.fingerprint == fingerprint:
            return gallery_of(dataset, found, keys)
        if not same:
            return None
        pictures: dict[int, bytes] = {}
        for gallery in same:
            pictures |= dict(gallery.pictures(range(len(gallery.labels.names))))
        complete = replace(same[0], pictures=pictures_in(pictures))
    return replace(complete, found=found, keys=keys)


def _wanted(board: Leaderboard, asked: Collection[str]) -> dict[str, str]:
    results = {row.result.model: row.result for row in board.by_acc}
    models = chosen(results.values(), asked)
    return keys_of((results[model] for model in models), str(board.dataset.get("fingerprint")))


def pictures_in(pictures: Mapping[int, bytes]) -> Pictures:
    return lambda places: ((place, pictures[place]) for place in places if place in pictures)


def shown(board: Leaderboard, gallery: Gallery, asked: Collection[str] = ()) -> ShownGallery | None:
    """Return what a page shows of a gallery, None if none of its models is on the board."""
    selection = select(board, gallery.labels, gallery.found, asked)
    if selection is None:
        return None
    pictures = limited(gallery.pictures(selection.images()))
    return ShownGallery(replace(gallery, found=selection.found), selection, pictures)


def dataset_of(settings: Mapping[str, Any], cache: Path) -> Dataset | None:
    """Return the dataset that a run's settings name, if it is on this machine: a folder, a table, the built-in images.

    Settings are input from others: they cause no download and run no code of a library.
    """
    from embedcore.images.dataset import load_dataset
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
