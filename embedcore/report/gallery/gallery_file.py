"""The file ``neighbours.npz`` of a report folder: a gallery that needs neither the dataset nor the cache.

It may come from others: its numbers are checked, and nothing in it is run.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embedcore.files import sealed, unsealed
from embedcore.report.gallery.gallery import Gallery, ShownGallery, pictures_in
from embedcore.report.gallery.selection import Labels
from embedcore.results.neighbours import KeptNeighbours

FORMAT = 1
_MOST_BYTES = 10_000_000
"""Of the neighbours in a file; with a large dataset it has the best models only."""
_log = logging.getLogger(__name__)


class _About(msgspec.Struct):
    format: int
    fingerprint: str
    models: dict[str, str]
    names: list[str]
    classes: list[str]


def written(shown: ShownGallery) -> bytes:
    """Return the content of the file."""
    gallery, labels, left = shown.gallery, shown.gallery.labels, _MOST_BYTES
    models: list[str] = []
    for model, found in gallery.found.items():
        left -= found.indices.nbytes + found.similarities.nbytes
        if left < 0 and models:
            break
        models.append(model)
    about = {
        "format": FORMAT,
        "fingerprint": gallery.fingerprint,
        "models": {model: gallery.keys[model] for model in models},
        # JSON cannot hold names of files that are not Unicode.
        "names": [name.encode("utf-8", "replace").decode() for name in labels.names],
        "classes": [name.encode("utf-8", "replace").decode() for name in labels.classes],
    }
    contents = [*shown.pictures.values()]
    arrays: dict[str, Any] = {
        "about": np.frombuffer(sealed(about), np.uint8),
        "labels": labels.class_of.astype(np.uint32),
        "queries": labels.queries.astype(np.uint32),
        "references": labels.references.astype(np.uint32),
        "places": np.array([*shown.pictures], np.uint32),
        "lengths": np.array([len(content) for content in contents], np.uint32),
        "pictures": np.frombuffer(b"".join(contents), np.uint8),
    }
    for number, model in enumerate(models):
        arrays[f"indices_{number}"] = gallery.found[model].indices
        arrays[f"similarities_{number}"] = gallery.found[model].similarities
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def read(path: Path) -> Gallery | None:
    """Return the gallery of a file, None (with a warning in the log) if it is damaged or of another kind."""
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        _log.warning("%s is damaged or not a file of a report (%s): skipped", path, error)
        return None


def _read(path: Path) -> Gallery:
    with np.load(path, allow_pickle=False) as arrays:
        about = msgspec.convert(unsealed(arrays["about"].tobytes()), _About)
        if about.format != FORMAT:
            raise ValueError(f"it has format {about.format}")
        class_of, queries, references, places, lengths = (
            arrays[name].astype(np.int64) for name in ("labels", "queries", "references", "places", "lengths")
        )
        content = arrays["pictures"].tobytes()
        found = {
            model: KeptNeighbours.make(arrays[f"indices_{number}"], arrays[f"similarities_{number}"])
            for number, model in enumerate(about.models)
        }
    n = len(about.names)
    limits = ((class_of, len(about.classes)), (queries, n), (references, n), (places, n), (lengths, len(content) + 1))
    if len(class_of) != n or any((part < 0).any() or (part >= limit).any() for part, limit in limits):
        raise ValueError("its numbers do not match")
    if len(places) != len(lengths) or lengths.sum() != len(content):
        raise ValueError("its pictures are cut short")
    ends = np.cumsum(lengths)
    pictures = {
        place: content[end - length : end]
        for place, length, end in zip(places.tolist(), lengths.tolist(), ends.tolist(), strict=True)
    }
    labels = Labels(about.names, about.classes, class_of, queries, references)
    return Gallery(about.fingerprint, labels, found, about.models, pictures_in(pictures))


def read_folders(folders: Iterable[Path]) -> list[Gallery]:
    """Return the galleries that reports have left in these folders."""
    paths = dict.fromkeys(path for folder in folders for path in sorted(folder.glob("neighbours*.npz")))
    return [gallery for gallery in map(read, paths) if gallery is not None]
