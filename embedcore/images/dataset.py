"""Labelled image sets: images with classes, queries and references."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.errors import UsageError
from embedcore.images.ceilings import acc5_ceiling, chance_acc, reference_counts
from embedcore.images.digests import Digests, numbered
from embedcore.images.duplicates import queries_among_references
from embedcore.images.sources import ImageSource
from embedcore.images.views import View, ViewSource
from embedcore.plain import counted


class LabelsBySide:
    """Mixin: labels of queries and references from the labels and roles of n images."""

    labels: NDArray[np.int64]
    is_query: NDArray[np.bool_]
    is_reference: NDArray[np.bool_]
    leave_one_out: bool

    @property
    def query_labels(self) -> NDArray[np.int64]:
        """[n_queries]"""
        return self.labels[self.is_query]

    @property
    def reference_labels(self) -> NDArray[np.int64] | None:
        """[n_references]; None for leave-one-out, as retrieval/ expects."""
        return None if self.leave_one_out else self.labels[self.is_reference]


@dataclass(frozen=True, eq=False)
class Dataset(LabelsBySide):
    """Images with classes and roles: queries and references, or leave-one-out, where each image queries all others."""

    name: str
    classes: tuple[str, ...]
    """Class names, ordered by their bytes; labels are indices into them."""
    titles: tuple[str, ...]
    """Name of each class in reports: the class name, or a title for people."""
    labels: NDArray[np.int64]
    """[n]"""
    is_query: NDArray[np.bool_]
    """[n]"""
    is_reference: NDArray[np.bool_]
    """[n]"""
    leave_one_out: bool
    images: ImageSource
    """The n images."""
    digests: Digests
    """SHA-256 (hex) of each image's content, [n]."""
    credits: tuple[str, ...] = ()
    """Lines to show wherever images are shown."""
    notes: tuple[str, ...] = ()
    """Lines that every report shows."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Name and reason of each image that was left out because it cannot be read."""
    unlabelled: bool = False
    """Whether the queries are views of the references, see :meth:`with_views`."""
    part_of: tuple[Dataset, NDArray[np.int64]] | None = None
    """The dataset from which these images were selected, and their indices there, [n]: its pixel store has them too."""

    def __len__(self) -> int:
        return len(self.digests)

    def __repr__(self) -> str:
        sides = (self.is_query, "query", "queries"), (self.is_reference, "reference", "references")
        apart = " and ".join(counted(int(side.sum()), *words) for side, *words in sides)
        if self.unlabelled:
            return f"Dataset {self.name!r}: {counted(len(self.classes), 'image')} without labels, and a view of each"
        images = counted(len(self), "image") if self.leave_one_out else apart
        if len(self.classes) < 2:
            return f"Dataset {self.name!r}: {images} without classes"
        protocol = ", leave-one-out" if self.leave_one_out else ""
        return f"Dataset {self.name!r}: {images} of {len(self.classes):,} classes{protocol}"

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the images, such as their paths relative to the dataset's folder, [n]."""
        return tuple(self.images.name(index) for index in range(len(self)))

    @functools.cached_property
    def query_names(self) -> tuple[str, ...]:
        """[n_queries]"""
        return tuple(itertools.compress(self.names, self.is_query))

    @functools.cached_property
    def reference_names(self) -> tuple[str, ...]:
        """Names by index of a neighbour, [n_references]; for leave-one-out, of all images."""
        return tuple(itertools.compress(self.names, self.is_reference))

    def expect_classes(self) -> None:
        """Raise UsageError for images without classes, which can only be embedded."""
        if len(self.classes) < 2:
            raise UsageError(f"{self.name} has no classes: it can be embedded, but scores need labels")

    def select_classes(self, chosen: Iterable[int]) -> Dataset:
        """Return the images of these classes, given by their labels, as a new dataset in the same order."""
        kept = np.unique(np.fromiter(chosen, np.int64))
        part = self.select(np.flatnonzero(np.isin(self.labels, kept)))
        return replace(
            part,
            name=f"{self.name}, {counted(len(kept), 'class', 'classes')}",
            classes=tuple(self.classes[label] for label in kept),
            titles=tuple(self.titles[label] for label in kept),
            labels=np.searchsorted(kept, part.labels),
        )

    def select(self, rows: NDArray[np.int64]) -> Dataset:
        """Return the images with these indices as a new dataset with the same classes."""
        return replace(
            self,
            labels=self.labels[rows],
            is_query=self.is_query[rows],
            is_reference=self.is_reference[rows],
            images=self.images.select(rows.tolist()),
            digests=self.digests[rows],
            part_of=(self, rows),
        )

    def with_views(self, seed: int = 0) -> Dataset:
        """Return the images without labels: each is a reference, and a view of it the query that should find it.

        A view is a crop, see ``images/views.py``. Images are ordered by content; of exact copies only the first is
        kept. Raises UsageError for fewer than two different images.
        """
        first = {digest: row for row, digest in reversed([*enumerate(self.digests)])}
        digests = sorted(first)
        number, copies = len(digests), len(self) - len(digests)
        if number < 2:
            raise UsageError(f"{self.name} has {counted(number, 'image')} without copies: at least two are needed")
        rows = [first[digest] for digest in digests]
        views = [View.drawn(digest, seed) for digest in digests]
        is_query = np.repeat([False, True], number)
        left_out = f"{counted(copies, 'exact copy', 'exact copies')} of other images left out"
        return Dataset(
            name=self.name,
            classes=tuple(digests),
            titles=tuple(self.names[row] for row in rows),
            labels=np.tile(np.arange(number), 2),
            is_query=is_query,
            is_reference=~is_query,
            leave_one_out=False,
            images=ViewSource(
                (*((row, None) for row in rows), *zip(rows, views, strict=True)),
                self.images,
                trusted=self.images.trusted,
                portable=self.images.portable,
                max_megapixels=self.images.max_megapixels,
            ),
            digests=Digests.of([*digests, *(view.digest for view in views)]),
            credits=self.credits,
            notes=(*self.notes, *([left_out] if copies else [])),
            skipped=self.skipped,
            unlabelled=True,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over class, role and content of all images, in order; independent of the files' location.

        The order is included since pixel stores and verdicts are kept by position.
        """
        digest = hashlib.sha256()
        names = [name.encode("utf-8", "surrogateescape") for name in self.classes]
        heads = [b"%d:%s" % (len(name), name) for name in names]
        sides = self.labels.tolist(), self.is_query.tolist(), self.is_reference.tolist()
        for label, query, reference, content in zip(*sides, self.digests, strict=True):
            digest.update(b"%s%d%d%s\n" % (heads[label], query, reference, content.encode()))
        return digest.hexdigest()

    @functools.cached_property
    def _contents(self) -> NDArray[np.int64]:
        """Number of each image's content, equal for copies, [n]."""
        return numbered(self.digests)

    @functools.cached_property
    def query_reference_duplicates(self) -> int:
        """Number of queries with an exact copy among the references (leave-one-out: among the other images).

        Any embedding finds the copy at similarity 1; see :attr:`duplicates_line`.
        """
        return int(queries_among_references(self._contents, self.is_query, self.is_reference).sum())

    @property
    def duplicates_line(self) -> str | None:
        """Warning about queries with exact copies among the references; None if there are none."""
        found = self.query_reference_duplicates
        if not found:
            return None
        others = "other images" if self.leave_one_out else "references"
        labelled = self._contents * len(self.classes) + self.labels
        same_class = int(queries_among_references(labelled, self.is_query, self.is_reference).sum())
        inflated = f"{same_class:,} of them in their own class, which inflates accuracy"
        queries = f"{found:,} of {int(self.is_query.sum()):,} queries"
        return f"{queries} are exact copies of {others}, {inflated if same_class else 'all in other classes'}"

    def summary(self) -> dict[str, Any]:
        """Return the facts that are saved with every run, as JSON values.

        ``duplicates``: images whose content equals that of an earlier image. ``lone_queries``: queries whose class has
        no (other) reference. ``acc5_ceiling`` and ``chance_acc`` are fractions; ``unlabelled`` takes their place.
        """
        sides = self.query_labels, self.reference_labels
        levels = {"acc5_ceiling": acc5_ceiling(*sides), "chance_acc": chance_acc(*sides)}
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "classes": len(self.classes),
            "queries": int(self.is_query.sum()),
            "references": int(self.is_reference.sum()),
            **({"unlabelled": True} if self.unlabelled else levels),
            "duplicates": len(self) - len(np.unique(self._contents)),
            "lone_queries": int((reference_counts(*sides) == 0).sum()),
        }
