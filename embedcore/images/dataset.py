"""A labelled image set: what to embed and who is to find whom."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.errors import UsageError
from embedcore.images import emoji
from embedcore.images.audit import Finding, audit
from embedcore.images.ceilings import acc5_ceiling, chance_acc, reference_counts
from embedcore.images.changes import first_change, stamp_table
from embedcore.images.duplicates import queries_among_references
from embedcore.images.folders import scan_folder
from embedcore.images.sources import ImageSource, LabelledImages, describe_bad_images, select
from embedcore.images.subset import choose
from embedcore.images.tables import read_table
from embedcore.images.timm_sets import SCHEMES, timm_images

SPLITS = ("auto", "loo")
BAD_IMAGES = ("fail", "skip")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with classes and roles.

    Either queries look among references, or (leave-one-out) every image looks among all others.
    """

    name: str
    classes: tuple[str, ...]
    """Names, ordered by their bytes; labels index them."""
    labels: NDArray[np.int64]
    """[n]"""
    is_query: NDArray[np.bool_]
    """[n]"""
    is_reference: NDArray[np.bool_]
    """[n]"""
    leave_one_out: bool
    images: ImageSource
    """n images."""
    digests: tuple[str, ...]
    """SHA-256 (hex) of the content of each image, [n]."""
    credits: tuple[str, ...] = ()
    """Lines to print wherever images are shown."""
    notes: tuple[str, ...] = ()
    """Lines that every report has to show."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Name and reason of the images that were left out since they cannot be read."""
    stamps: NDArray[np.int64] | None = field(default=None, repr=False)
    """Stamp of each image's file, [n, 4], for :meth:`changed`. Left behind when the dataset goes to another process."""

    def __len__(self) -> int:
        return len(self.digests)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "stamps": None}

    @property
    def query_labels(self) -> NDArray[np.int64]:
        """[n_queries]"""
        return self.labels[self.is_query]

    @property
    def reference_labels(self) -> NDArray[np.int64] | None:
        """[n_references]; None for leave-one-out, as the functions of retrieval/ take it."""
        return None if self.leave_one_out else self.labels[self.is_reference]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over class, role and content of all images in order; independent of where the files lie.

        The order is part of it, since pixel stores and verdicts are kept by position.
        """
        digest = hashlib.sha256()
        for label, query, reference, content in zip(
            self.labels, self.is_query, self.is_reference, self.digests, strict=True
        ):
            name = self.classes[label].encode("utf-8", "surrogateescape")
            digest.update(b"%d:%s%d%d%s\n" % (len(name), name, query, reference, content.encode()))
        return digest.hexdigest()

    @functools.cached_property
    def query_reference_duplicates(self) -> int:
        """How many queries are, byte for byte, among the references too (leave-one-out: among the other images).

        Any embedding finds them at similarity 1, which inflates accuracy; see :func:`duplicates.duplicates_line`.
        """
        return int(queries_among_references(self).sum())

    def changed(self) -> str | None:
        """One line naming the first image whose file has changed or gone since the dataset was loaded, else None.

        Cheap: a file is read again only if its size, times or inode have changed. Images that are not files of their
        own, and those of a dataset that came from another process, are taken to be as they were.
        """
        return None if self.stamps is None else first_change(self.images, self.digests, self.stamps)

    def summary(self) -> dict[str, Any]:
        """The facts about the dataset that are saved with every run, as plain JSON values.

        ``duplicates``: images whose content equals that of an earlier image. ``lone_queries``: queries whose class has
        no (other) reference. ``acc5_ceiling`` and ``chance_acc`` are fractions.
        """
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "classes": len(self.classes),
            "queries": int(self.is_query.sum()),
            "references": int(self.is_reference.sum()),
            "acc5_ceiling": float(acc5_ceiling(self.query_labels, self.reference_labels)),
            "chance_acc": float(chance_acc(self.query_labels, self.reference_labels)),
            "duplicates": len(self.digests) - len(set(self.digests)),
            "lone_queries": int((reference_counts(self.query_labels, self.reference_labels) == 0).sum()),
        }


def load_dataset(
    spec: str = "emoji",
    *,
    split: str = "auto",
    max_classes: int | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
    bad_images: str = "fail",
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Find the images that a spec stands for, and look at each once.

    ``spec``: ``emoji``; a folder; ``csv:FILE``; or one of timm's schemes, such as
    ``torch/mnist,root=/data,split=test``.
    ``split``: ``auto`` takes queries and references where the data has them, else leave-one-out; ``loo`` is
    leave-one-out over all images. ``max_classes`` and ``max_per_class`` take a subset chosen by ``seed`` (None: all,
    but 256 classes of emoji; 0: all).
    ``bad_images``: images that cannot be read ``fail`` the loading, all of them named; or ``skip`` leaves them out of
    the subset and names them in ``Dataset.skipped``.
    ``cache_dir``: what the audit found out is kept there, so that unchanged images are not looked at again.
    ``progress(done, total)`` is called as images are looked at.

    Raises UsageError for what cannot be measured: nothing there, one class only, no query with a reference, files that
    cannot be read.
    """
    if bad_images not in BAD_IMAGES:
        raise UsageError(f"bad_images is {bad_images!r}: one of {', '.join(BAD_IMAGES)}")
    audited = audit_dataset(
        spec,
        split=split,
        max_classes=max_classes,
        max_per_class=max_per_class,
        seed=seed,
        cache_dir=cache_dir,
        progress=progress,
    )
    if audited.bad and bad_images == "fail":
        raise UsageError(describe_bad_images(audited.bad, len(audited.findings), audited.where))
    return audited.dataset()


def audit_dataset(
    spec: str = "emoji",
    *,
    split: str = "auto",
    max_classes: int | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
    decode_all: bool = False,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AuditedDataset:
    """What :func:`load_dataset` is going to find; the arguments are the same. Bad images raise nothing here.

    ``decode_all``: also images of a trusted source, which are otherwise only read.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    for option, value in (("max_classes", max_classes), ("max_per_class", max_per_class)):
        if value is not None and value < 0:
            raise UsageError(f"{option} is {value}: a number of at least 0, where 0 means all")
    if max_classes is None:
        max_classes = emoji.DEFAULT_CLASSES if spec == "emoji" else 0
    found = _find(spec, split)
    kept = choose(found, max_classes=max_classes, max_per_class=max_per_class or 0, seed=seed)
    _sides(found, kept, found.where)  # what no image can mend is said before any is looked at
    source = select(found.source, kept)
    decode = decode_all or not source.trusted
    return AuditedDataset(found, kept, audit(source, decode=decode, cache_dir=cache_dir, progress=progress))


@dataclass(frozen=True)
class AuditedDataset:
    """The images that a spec stands for, with what the audit found out about each."""

    found: LabelledImages
    chosen: Sequence[int]
    """The images among those found that the subset holds."""
    findings: Sequence[Finding]
    """Of the images chosen."""

    @property
    def where(self) -> str:
        return self.found.where

    @functools.cached_property
    def bad(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of the images that cannot be read."""
        pairs = zip(self.chosen, self.findings, strict=True)
        return tuple((self.found.source.name(index), finding.reason) for index, finding in pairs if finding.reason)

    @property
    def good(self) -> list[Finding]:
        """Findings of the images that can be read: those of :meth:`dataset`."""
        return [finding for finding in self.findings if not finding.reason]

    def dataset(self) -> Dataset:
        """The images that can be read. Raises UsageError if they cannot be measured."""
        kept = [index for index, finding in zip(self.chosen, self.findings, strict=True) if not finding.reason]
        left_out = f", {len(self.bad)} bad images left out" if self.bad else ""
        classes, labels, is_query, is_reference = _sides(self.found, kept, self.where + left_out)
        return Dataset(
            name=self.found.name,
            classes=classes,
            labels=labels,
            is_query=is_query,
            is_reference=is_reference,
            leave_one_out=self.found.roles is None,
            images=select(self.found.source, kept),
            digests=tuple(finding.digest for finding in self.good),
            credits=self.found.credits,
            notes=(*self.found.notes, *self._animated()),
            skipped=self.bad,
            stamps=stamp_table([finding.stamp for finding in self.good]),
        )

    def _animated(self) -> tuple[str, ...]:
        """The note on animated images, if there are any."""
        pairs = zip(self.chosen, self.findings, strict=True)
        animated = [index for index, finding in pairs if finding.facts is not None and finding.facts.animated]
        if not animated:
            return ()
        first = self.found.source.name(animated[0])
        if len(animated) == 1:
            return (f"1 animated image, {first!r}: its first frame is used",)
        return (f"{len(animated)} animated images: the first frame of each is used, the first is {first!r}",)


def _find(spec: str, split: str) -> LabelledImages:
    scheme = re.match(r"[a-z]{2,}(?=[:/])", spec)
    readers: Mapping[str, Callable[[], LabelledImages]] = {
        "csv": lambda: read_table(Path(spec.removeprefix("csv:")).expanduser(), split=split),
        **dict.fromkeys(SCHEMES, lambda: timm_images(spec)),
    }
    if spec == "emoji":
        return emoji.emoji_images(split=split)
    if not spec:
        raise UsageError(f"no dataset named: {_KINDS}")
    if scheme and scheme[0] in readers and (spec[scheme.end()] == ":") == (scheme[0] == "csv"):
        return readers[scheme[0]]()
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return scan_folder(folder, split=split)
    if scheme and spec[scheme.end()] == ":":
        raise UsageError(f"unknown dataset scheme {scheme[0]!r} in {spec!r}: {_KINDS}")
    if folder.exists():
        raise UsageError(f"{folder.absolute()} is a file, not a folder of images: {_KINDS}")
    raise UsageError(f"no such folder of images: {folder.absolute()}; {_KINDS}")


_KINDS = f"a dataset is emoji, a folder, csv:FILE or one of timm's {' '.join(f'{name}/…' for name in SCHEMES)}"


def _sides(
    found: LabelledImages, kept: Sequence[int], where: str
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Classes, labels and whether each of the images kept is a query and a reference.

    Raises UsageError where nothing can be found.
    """
    if not kept:
        raise UsageError(f"no images are left in {where}")
    names = [found.class_names[index] for index in kept]
    classes = tuple(sorted(set(names), key=lambda name: name.encode("utf-8", "surrogateescape")))
    if len(classes) < 2:
        found_in = f"only one class, {classes[0]!r}, in {where}"
        if len(set(found.class_names)) > 1:
            found_in = f"one class only is left of {where}"
        raise UsageError(f"{found_in}: retrieval needs images of at least two")
    position = {name: label for label, name in enumerate(classes)}
    labels = np.array([position[name] for name in names], np.int64)
    if found.roles is None:
        is_query = is_reference = np.ones(len(kept), np.bool_)
        if np.bincount(labels).max() < 2:
            raise UsageError(f"every class in {where} has one image only: no image has another of its class to find")
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
