"""Load a dataset: choose the images that the user names, audit them and return a `Dataset`."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.images.archives import is_archive
from embedcore.images.audit import Finding, Findings, audit
from embedcore.images.columns import NAMES
from embedcore.images.dataset import Dataset
from embedcore.images.decode import MAX_MEGAPIXELS
from embedcore.images.folders import scan_folder
from embedcore.images.image_shards import shards_of
from embedcore.images.sources import LabelledImages, describe_bad_images
from embedcore.images.specification import CSV, chosen_images, csv_images, is_frame
from embedcore.images.tables import entries, listed_images
from embedcore.plain import counted
from embedcore.progress import Progress

BAD_IMAGES = ("fail", "skip")


def load_dataset(
    images: Any = "emoji",
    labels: Iterable[Any] | None = None,
    *,
    roles: Iterable[Any] | None = None,
    split: str = "auto",
    columns: Mapping[str, str] | str | None = None,
    max_classes: int | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
    bad_images: str = "fail",
    max_megapixels: float = MAX_MEGAPIXELS,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    unlabelled: bool = False,
) -> Dataset:
    """Load a labelled dataset and audit each of its images once.

    ``images``: ``emoji`` or ``objects``, which are built in; a folder, whose subfolders are the classes, or a zip or
    tar file of one; a Parquet or Arrow file, or a folder of these or of WebDataset's tar files; ``csv:FILE``;
    ``hf://datasets/NAME``; one of timm's schemes, such as ``torch/mnist,root=/data,split=test``; a list of
    paths, PIL images or arrays (uint8 [h, w, 3]), with their ``labels`` [n] and optional ``roles`` [n] (``query``,
    ``reference`` or ``gallery``); a DataFrame with the columns path, label and optionally role or split; a
    ``datasets.Dataset`` of Hugging Face; or another dataset object with pairs (image, class), such as torchvision's, or
    with dicts. See docs/datasets.md for each kind.
    ``split``: ``auto`` uses queries and references if the data has them, else leave-one-out; ``loo`` is leave-one-out
    over all images; ``REFERENCES:QUERIES`` names the folders of the two sides, such as ``train:val``, or values of a
    table's column split.
    ``columns``: the columns of a table, or the keys of dicts, if their names do not tell: ``path=image,label=class``,
    or a mapping ``{"path": "image", "label": "class"}``.
    ``max_classes`` and ``max_per_class`` choose a subset by ``seed`` (0: all; None: all, but 256 classes of emoji).
    ``bad_images``: ``fail`` raises an error that names all images that cannot be read; ``skip`` leaves them out and
    names them in ``Dataset.skipped``. ``max_megapixels``: larger images count as bad.
    ``cache_dir``: folder for the results of the audit, so that unchanged images are not audited again, and for the
    files of an archive (default: the user's cache folder).
    ``progress(done, total)`` is called during the audit.
    ``unlabelled``: the images have no labels, or labels that do not matter; queries are views of them, see
    :meth:`Dataset.with_views`. A folder may have its images anywhere, a csv file needs only the column path; a list
    takes none of the arguments that choose among labelled images.

    Raises UsageError for a dataset that cannot be measured: no images, one class only, no query with a reference,
    images that cannot be read, labels that are not classes.
    """
    if bad_images not in BAD_IMAGES:
        raise UsageError(f"bad_images is {bad_images!r}: one of {', '.join(BAD_IMAGES)}")
    choice: dict[str, Any] = {
        "roles": roles,
        "split": split,
        "columns": columns,
        "max_classes": max_classes,
        "max_per_class": max_per_class,
        "seed": seed,
    }
    choice |= {"max_megapixels": max_megapixels, "cache_dir": cache_dir, "progress": progress}
    if not unlabelled:
        return audit_dataset(images, labels, **choice).dataset(bad_images)
    if not isinstance(images, str | os.PathLike):
        given = {
            "labels": labels is not None,
            "roles": roles is not None,
            "split": split != "auto",
            "columns": columns is not None,
            "max_classes": max_classes is not None,
            "max_per_class": max_per_class is not None,
            "bad_images": bad_images != "fail",
            "max_megapixels": max_megapixels != MAX_MEGAPIXELS,
        }
        if without := ", ".join(name for name, found in given.items() if found):
            kind = f"a {type(images).__name__} of images without labels"
            raise UsageError(f"{without}: not for {kind}: choose the images before, or name a folder or csv file")
        return as_dataset(images).with_views(seed)
    return audit_dataset(images, unlabelled=True, **choice).dataset(bad_images).with_views(seed)


def count_images(images: Any = "emoji", **choice: Any) -> int:
    """Return the number of images that :func:`load_dataset` would return, without an audit; same arguments."""
    return len(chosen_images(images, None, **choice)[1]) * (2 if choice.get("unlabelled") else 1)


def as_dataset(images: Any) -> Dataset:
    """Return a dataset of images without classes, to embed.

    ``images``: a folder with its subfolders, a file, a DataFrame or csv file with a column path (or file, image, …), or
    a list of paths, PIL images or arrays (uint8 [h, w, 3]). A Dataset is returned as it is, and the name of one
    (``emoji``, ``csv:FILE`` with labels, …) is loaded.

    `Dataset.names` are the names of the images in order, such as their paths. The only class is "."; see
    :meth:`Dataset.expect_classes`. Raises UsageError for anything else, and for missing files.
    """
    if isinstance(images, Dataset):
        return images
    if isinstance(images, str | Path):
        path = user_path(images)
        exists = os.path.exists(path)  # noqa: PTH110 (a long name)
        is_table = path.suffix.lower() == ".csv" and path.is_file()
        if is_table or str(images).startswith(CSV):
            spec = f"{CSV}{images}" if is_table else str(images)
            found = csv_images(spec, "auto", {})
            if not found.classless:
                return load_dataset(spec)
        elif is_archive(path) or shards_of(path) or not (isinstance(images, Path) or exists):
            return load_dataset(images)
        else:
            found = _unlabelled([path]) if path.is_file() else scan_folder(path, split="loo")
    elif is_frame(images):
        found = _unlabelled(_paths_of(images))
    elif isinstance(images, Iterable) and not hasattr(images, "columns") and getattr(images, "ndim", 4) in (1, 4):
        found = _unlabelled(entries(images, "images"))
    else:
        kinds = "a dataset, a folder, a DataFrame or a list of images"
        raise UsageError(f"a {type(images).__name__} cannot be embedded: give {kinds}")
    if not len(found.source):
        raise UsageError("no images to embed: the list is empty")
    found = replace(found, class_names=["."] * len(found.source), classless=True)
    return AuditedDataset(found, range(len(found.source)), audit(found.source, decode=False)).dataset("fail")


def _paths_of(frame: Any) -> list[Any]:
    """Return the column of paths of a DataFrame. Raises UsageError."""
    words = {str(name).strip().lower(): name for name in frame.columns}
    known = [word for word in NAMES["path"] if word in words]
    if not known or (len(known) > 1 and "path" not in known):
        why = f"columns {' and '.join(known)}" if known else "no column 'path'"
        raise UsageError(f"the DataFrame: {why}: give the column of paths itself, such as frame['file']")
    return list(frame[words[known[0]]])


def _unlabelled(images: list[Any]) -> LabelledImages:
    return listed_images(images, ["."] * len(images), None, split="loo")


def audit_dataset(
    images: Any = "emoji",
    labels: Iterable[Any] | None = None,
    *,
    decode_all: bool = False,
    hashes: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    **choice: Any,
) -> AuditedDataset:
    """Audit a dataset; other arguments are those of :func:`load_dataset`. Bad images are no error here.

    ``decode_all``: decode images of a trusted source too, which are otherwise only read. ``hashes``: compute perceptual
    hashes, for near-duplicates.
    """
    if not max_megapixels > 0:
        raise UsageError(f"max_megapixels is {max_megapixels}: a number above 0")
    cache = None if cache_dir is None else user_path(cache_dir)
    found, kept = chosen_images(images, labels, cache_dir=cache, **choice)
    _sides(found, kept, found.where)  # raises before the audit for errors that do not depend on the images
    found = replace(found, source=replace(found.source, max_megapixels=max_megapixels))
    source = found.source.select(kept)
    decode = decode_all or not source.trusted
    findings = audit(source, decode=decode, hashes=hashes, cache_dir=cache, progress=progress)
    return AuditedDataset(found, kept, findings)


@dataclass(frozen=True)
class AuditedDataset:
    """The images of a dataset with the findings of the audit."""

    found: LabelledImages
    chosen: Sequence[int]
    """Indices in ``found`` of the images in the subset."""
    findings: Findings
    """Findings on the chosen images."""

    @functools.cached_property
    def bad(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each image that cannot be read."""
        reasons = self.findings.reasons.items()
        return tuple((self.found.source.name(self.chosen[place]), reason) for place, reason in reasons)

    @property
    def good(self) -> Iterator[Finding]:
        """Findings on the images that can be read, which are those of :meth:`dataset`."""
        return (finding for finding in self.findings if not finding.reason)

    def dataset(self, bad_images: str = "skip") -> Dataset:
        """Return the images that can be read. Raises UsageError if they cannot be measured or ``bad_images`` fail."""
        if self.bad and bad_images == "fail":
            raise UsageError(describe_bad_images(self.bad, len(self.findings), self.found.where))
        places = [place for place in range(len(self.chosen)) if place not in self.findings.reasons]
        kept = [self.chosen[place] for place in places]
        left_out = f", {len(self.bad)} bad images left out" if self.bad else ""
        classes, labels, is_query, is_reference = _sides(self.found, kept, self.found.where + left_out)
        images = self.found.source.select(kept)
        return Dataset(
            name=self.found.name,
            classes=classes,
            titles=tuple(self.found.titles.get(name, name) for name in classes),
            labels=labels,
            is_query=is_query,
            is_reference=is_reference,
            leave_one_out=self.found.roles is None,
            images=images,
            digests=self.findings.digests[np.array(places, np.int64)],
            credits=self.found.credits,
            notes=(*self.found.notes, *self._animated()),
            skipped=self.bad,
        )

    def _animated(self) -> tuple[str, ...]:
        """Return the note on animated images, if there are any."""
        animated = [self.chosen[place] for place in self.findings.animated()]
        if not animated:
            return ()
        first = self.found.source.name(animated[0])
        return (f"{counted(len(animated), 'animated image')}, such as {first!r}: only first frames are used",)


def _sides(
    found: LabelledImages, kept: Sequence[int], where: str
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return classes, labels, and whether each of the kept images is a query and a reference.

    Raises UsageError if no query can find a reference of its class.
    """
    if not kept:
        raise UsageError(f"no images are left in {where}")
    names = [found.class_names[index] for index in kept]
    classes = tuple(sorted(set(names), key=lambda name: name.encode("utf-8", "surrogateescape")))
    if len(classes) < 2 and not found.classless:
        found_in = f"only one class, {classes[0]!r}, in {where}"
        if classes == (".",):
            raise UsageError(
                f"{where} has no subfolders, and a class is a subfolder: use one folder per class "
                "(FOLDER/CLASS/IMAGE), or a csv with path,label (csv:FILE)"
            )
        if len(set(found.class_names)) > 1:
            found_in = f"only one class is left of {where}"
        raise UsageError(f"{found_in}: retrieval needs images of at least two")
    position = {name: label for label, name in enumerate(classes)}
    labels = np.array([position[name] for name in names], np.int64)
    if found.roles is None:
        is_query = is_reference = np.ones(len(kept), np.bool_)
        if np.bincount(labels).max() < 2 and not found.classless:
            raise UsageError(
                f"every class in {where} has only one image: there is no other image of the same class to find"
            )
        return classes, labels, is_query, is_reference
    is_query = np.array([found.roles[index] == "query" for index in kept], np.bool_)
    is_reference = ~is_query
    for side, members in (("query", is_query), ("reference", is_reference)):
        if not members.any():
            raise UsageError(f"no {side} images in {where}: both queries and references are needed (or the split loo)")
    if not np.isin(labels[is_query], labels[is_reference]).any():
        raise UsageError(
            f"no query has a reference of its class in {where}: {int(is_query.sum())} queries and "
            f"{int(is_reference.sum())} references have no class in common"
        )
    return classes, labels, is_query, is_reference
