"""The kept embeddings of a saved run, and the labels of its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedcore.embed.kept import KeptEmbeddings
from embedcore.errors import EmbedcoreError, UsageError, option
from embedcore.results.run import Run
from embedcore.results.verdicts import unpack_classes


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """Class and role of each of n images."""

    labels: NDArray[np.int64]
    """[n]"""
    is_query: NDArray[np.bool_]
    """[n]"""
    is_reference: NDArray[np.bool_]
    """[n]"""

    @property
    def leave_one_out(self) -> bool:
        """Whether each image queries all others."""
        return bool(self.is_query.all() and self.is_reference.all())


class Unavailable(EmbedcoreError):
    """Embeddings or labels are not available; the message is a phrase that says why."""


def labels_of(run: Run) -> ImageLabels:
    """Return the labels of the images of a run's dataset.

    Raises Unavailable if the run does not record them, and UsageError if they are damaged.
    """
    block = run.dataset
    try:
        queries = unpack_classes(block["query_classes"]).astype(np.int64)
        if "roles" not in block and block.get("queries") == block.get("references") == len(queries):
            return ImageLabels(queries, *(np.ones(len(queries), dtype=np.bool_) for _ in range(2)))
        roles, references = (unpack_classes(block[name]) for name in ("roles", "reference_classes"))
        labels = np.full(len(roles), -1, dtype=np.int64)
        is_query, is_reference = (roles & 1) > 0, (roles & 2) > 0
        labels[is_reference] = references
        labels[is_query] = queries
    except KeyError:
        raise Unavailable(
            f"{run.name} does not record the labels of its images: an older embedcore measured it"
        ) from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"{run.path}: labels of the images: {error}") from error
    return ImageLabels(labels, is_query, is_reference)


def rows_of(kept: KeptEmbeddings, run: Run, key: str | None, n: int) -> NDArray[np.float32]:
    """Return the embeddings [n, d] with a result's `key`. Raises Unavailable."""
    if key is None:
        raise Unavailable(f"{run.name} was measured without {option('keep_embeddings', True)}")
    rows = kept.read(key, n)
    if rows is None:
        raise Unavailable(f"the embeddings of {run.name} are no longer in {kept.folder}")
    return rows
