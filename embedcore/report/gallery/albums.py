"""Where a gallery comes from: the session's dataset, the cache folder, or the file that an earlier report has left.

The file, ``neighbours.npz`` in the report folder, has neighbours, names, classes and pictures, so that a report can be
made from it where there is neither the dataset nor the cache. What it says is data of somebody else's: it is checked,
and nothing in it is run.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from embedcore.errors import EmbedcoreError
from embedcore.files import sealed, unsealed
from embedcore.report.gallery.gallery import Gallery, Labels, gallery, limited
from embedcore.results.neighbours import Found, chosen, find, keys_of

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.results.leaderboard import Leaderboard

FORMAT = 1
_MOST_BYTES = 10_000_000
"""Of the neighbours in a file; of a large dataset those of the best models are in it."""
_log = logging.getLogger(__name__)

Pictures = Callable[[Iterable[int]], Iterable[tuple[int, bytes]]]
"""The pictures of images by their places, WebP, without those that cannot be had."""


@dataclass(frozen=True)
class Album:
    """Neighbours, and what they are neighbours in."""

    fingerprint: str
    """Of the dataset."""
    labels: Labels
    found: Mapping[str, Found]
    keys: Mapping[str, str]
    """See `embedcore.results.neighbours.key_of`, of the models in `found`."""
    pictures: Pictures


@dataclass(frozen=True)
class Shown:
    """A gallery with its pictures, and the file that it can be made from again."""

    gallery: Gallery
    pictures: Mapping[int, bytes]
    file: bytes


def album_of(
    dataset: Dataset, found: Mapping[str, Found], keys: Mapping[str, str], store: PixelStore | None = None
) -> Album:
    """An album of a dataset whose images can be read; `store`: its pixels, where they are at hand."""
    import numpy as np

    from embedcore.images.thumbnails import thumbnails

    queries, references = np.flatnonzero(dataset.is_query), np.flatnonzero(dataset.is_reference)
    labels = Labels(dataset.names, dataset.classes, dataset.labels, queries, references)
    return Album(dataset.fingerprint, labels, found, keys, lambda places: thumbnails(dataset, places, store))


def session_album(
    board: Leaderboard, dataset: Dataset, cache: Path, asked: Collection[str], store: PixelStore | None = None
) -> Album | None:
    """The album of the models that a report shows, of which the cache has neighbours; None where it has none."""
    keys = _wanted(board, asked)
    found = find(cache, keys)
    return album_of(dataset, found, keys, store) if found else None


def saved_album(
    board: Leaderboard,
    cache: Path,
    files: Iterable[Path],
    load: Callable[[], Dataset | None],
    asked: Collection[str] = (),
) -> Album | None:
    """The album of a saved run, from what `files` (those of earlier reports) and the cache have of its very results.

    `load` gives the run's dataset, if it can be had; it is asked only where the files do not suffice. None where
    nothing is found.
    """
    keys = _wanted(board, asked)
    fingerprint = board.dataset.get("fingerprint")
    there = [album for album in map(read, files) if album is not None and album.fingerprint == fingerprint]
    found = find(cache, keys)
    for album in there:
        found |= {model: each for model, each in album.found.items() if keys.get(model) == album.keys.get(model)}
    found = {model: found[model] for model in keys if model in found}
    if not found:
        return None
    whole = next((album for album in there if found.keys() <= album.found.keys()), None)
    if whole is None:
        dataset = load()
        if dataset is not None and dataset.fingerprint == fingerprint:
            return album_of(dataset, found, keys)
        if not there:
            return None
        pictures: dict[int, bytes] = {}
        for album in there:
            pictures |= dict(album.pictures(range(len(album.labels.names))))
        whole = replace(there[0], pictures=_from(pictures))
    return replace(whole, found=found, keys=keys)


def _wanted(board: Leaderboard, asked: Collection[str]) -> dict[str, str]:
    results = {row.result.model: row.result for row in board.by_acc}
    models = chosen(results.values(), asked)
    return keys_of((results[model] for model in models), str(board.dataset.get("fingerprint")))


def shown(board: Leaderboard, album: Album, asked: Collection[str] = ()) -> Shown | None:
    """The gallery of an album with its pictures; None where none of its models is on the board."""
    made = gallery(board, album.labels, album.found, asked)
    if made is None:
        return None
    pictures = limited(album.pictures(made.images()))
    return Shown(made, pictures, written(replace(album, found=made.found), pictures))


def written(album: Album, pictures: Mapping[int, bytes]) -> bytes:
    """The content of a file of which `read` makes the album again, with these pictures."""
    import numpy as np

    labels, left = album.labels, _MOST_BYTES
    models: list[str] = []
    for model, found in album.found.items():
        left -= found.indices.nbytes + found.similarities.nbytes
        if left < 0 and models:
            break
        models.append(model)
    about = {
        "format": FORMAT,
        "fingerprint": album.fingerprint,
        "models": {model: album.keys[model] for model in models},
        # JSON has no place for what is not Unicode in names of files.
        "names": [name.encode("utf-8", "replace").decode() for name in labels.names],
        "classes": [name.encode("utf-8", "replace").decode() for name in labels.classes],
    }
    contents = [*pictures.values()]
    arrays: dict[str, Any] = {
        "about": np.frombuffer(sealed(about), np.uint8),
        "labels": labels.of.astype(np.uint32),
        "queries": labels.queries.astype(np.uint32),
        "references": labels.references.astype(np.uint32),
        "places": np.array([*pictures], np.uint32),
        "lengths": np.array([len(content) for content in contents], np.uint32),
        "pictures": np.frombuffer(b"".join(contents), np.uint8),
    }
    for number, model in enumerate(models):
        arrays[f"indices_{number}"] = album.found[model].indices
        arrays[f"similarities_{number}"] = album.found[model].similarities
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


class _About(msgspec.Struct):
    format: int
    fingerprint: str
    models: dict[str, str]
    names: list[str]
    classes: list[str]


def read(path: Path) -> Album | None:
    """The album in a file of an earlier report; None, and a warning, where there is none that can be read."""
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged or no file of a report (%s): passed over", path, error)
        return None


def _read(path: Path) -> Album:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        about = msgspec.convert(unsealed(arrays["about"].tobytes()), _About)
        if about.format != FORMAT:
            raise ValueError(f"it has format {about.format}")
        of, queries, references, places, lengths = (
            arrays[name].astype(np.int64) for name in ("labels", "queries", "references", "places", "lengths")
        )
        content = arrays["pictures"].tobytes()
        found = {
            model: Found.make(arrays[f"indices_{number}"], arrays[f"similarities_{number}"])
            for number, model in enumerate(about.models)
        }
    n = len(about.names)
    if len(of) != n or any(
        (part < 0).any() or (part >= most).any()
        for part, most in (
            (of, len(about.classes)),
            (queries, n),
            (references, n),
            (places, n),
            (lengths, len(content) + 1),
        )
    ):
        raise ValueError("its numbers do not fit each other")
    if len(places) != len(lengths) or lengths.sum() != len(content):
        raise ValueError("its pictures are cut short")
    ends = np.cumsum(lengths).tolist()
    pictures = {
        place: content[end - length : end]
        for place, length, end in zip(places.tolist(), lengths.tolist(), ends, strict=True)
    }
    labels = Labels(about.names, about.classes, of, queries, references)
    return Album(about.fingerprint, labels, found, about.models, _from(pictures))


def _from(pictures: Mapping[int, bytes]) -> Pictures:
    def there(places: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        return ((place, pictures[place]) for place in places if place in pictures)

    return there


def dataset_of(settings: Mapping[str, Any], cache: Path) -> Dataset | None:
    """The dataset that a run's settings name, if it is on this machine: a folder, a table or the built-in images."""
    from embedcore.images.dataset import load_dataset
    from embedcore.images.timm_sets import SCHEMES

    spec = settings.get("dataset")
    # Settings are of whoever saved the run: nothing is asked of a hub, and no code of a library's runs, for them.
    if not isinstance(spec, str) or spec.startswith(tuple(f"{scheme}/" for scheme in SCHEMES)):
        return None
    names = ("split", "max_classes", "max_per_class", "seed", "bad_images", "max_megapixels")
    try:
        return load_dataset(spec, cache_dir=cache, **{name: settings[name] for name in names if name in settings})
    except (EmbedcoreError, OSError, TypeError) as error:
        _log.warning("the images of %s cannot be had here (%s)", spec, error)
        return None


def files_in(folders: Sequence[Path]) -> list[Path]:
    """The files that reports have left in these folders."""
    return list(dict.fromkeys(path for folder in folders for path in sorted(folder.glob("neighbours*.npz"))))
