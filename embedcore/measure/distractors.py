"""Distractors: references of no class, which are added to measure accuracy in larger galleries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcore.embed.embedding_blocks import FORMATS, embedding_files, read_blocks
from embedcore.errors import UsageError, option
from embedcore.files import user_path
from embedcore.images.audit import audit
from embedcore.images.dataset import Dataset
from embedcore.images.decode import MAX_MEGAPIXELS
from embedcore.images.folders import scan_folder
from embedcore.images.ledger import Ledger
from embedcore.images.load_dataset import AuditedDataset
from embedcore.plain import counted
from embedcore.progress import Progress
from embedcore.results.result import DistractorScores
from embedcore.results.verdicts import pack_classes
from embedcore.retrieval.gallery_growth import best_positives, grown_accuracy
from embedcore.retrieval.metrics import Scores
from embedcore.retrieval.streamed import beaten_by

_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class Distractors:
    """The distractors of a run: images, or embeddings in files."""

    path: Path
    fingerprint: str
    """Hash of the content."""
    images: Dataset | None = None
    """None for files of embeddings."""
    _beside: dict[str, Dataset] = field(default_factory=dict)

    def beside(self, labelled: Dataset) -> Dataset:
        """Return the images whose content is not that of a labelled image. Raises UsageError if there are none."""
        assert self.images is not None
        found = self._beside.get(labelled.fingerprint)
        if found is None:
            known = {*labelled.digests}
            kept = np.array([digest not in known for digest in self.images.digests])
            if not kept.any():
                raise UsageError(f"{option('distractors')}: all images of {self.path} are copies of labelled images")
            found = self.images if kept.all() else self.images.select(np.flatnonzero(kept))
            self._beside[labelled.fingerprint] = found
        return found

    def files_of(self, model: str) -> Path:
        """Return the path of a model's embeddings: the folder of its name if there is one, else the whole path."""
        own = self.path / model
        return own if own.name == model and own.is_dir() else self.path

    def note(self, labelled: Dataset) -> str:
        """Return a line about the distractors, for the session and its report."""
        if self.images is None:
            return f"distractors: embeddings of {self.path}"
        copies = len(self.images) - len(self.beside(labelled))
        left_out = f"; left out: {counted(copies, 'copy', 'copies')} of labelled images" if copies else ""
        skipped = f"; skipped: {counted(len(self.images.skipped), 'unreadable image')}" if self.images.skipped else ""
        return f"distractors: {counted(len(self.images) - copies, 'image')} of {self.path}{left_out}{skipped}"


def load_distractors(
    what: str | Path,
    *,
    bad_images: str = "fail",
    max_megapixels: float = MAX_MEGAPIXELS,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Distractors:
    """Load distractors: a folder of images, or a file or folder of embeddings, which may have a folder for each model.

    The other arguments are those of `embedcore.load_dataset`. Raises UsageError for anything else, and for images that
    cannot be read.
    """
    path = user_path(what)
    try:
        folders = sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
        files = [file for place in (path, *folders) for file in embedding_files(place)]
        ledger = Ledger(cache_dir)
        listed = "".join(f"{ledger.sha256(file)} {file.relative_to(path).as_posix()}\n" for file in files)
    except OSError as error:
        raise UsageError(f"{option('distractors')}: {path} cannot be read: {error.strerror or error}") from error
    if files:
        return Distractors(path, hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest())
    if not path.is_dir():
        kinds = f"a folder of images, or embeddings ({', '.join(FORMATS)}) in a file or folder"
        raise UsageError(f"{option('distractors')}: {path.absolute()} is not {kinds}")
    found = scan_folder(path, split="loo")
    source = replace(found.source, max_megapixels=max_megapixels)
    found = replace(found, source=source, class_names=["."] * len(source), classless=True)
    findings = audit(source, cache_dir=cache_dir, progress=progress)
    images = AuditedDataset(found, range(len(source)), findings).dataset(bad_images)
    return Distractors(path, images.fingerprint, images)


def score_distractors(sides: tuple[Any, ...], scores: Scores, source: Any, *, seed: int) -> DistractorScores:
    """Return acc in larger galleries.

    Args:
        sides: embeddings and labels of the queries, and of the references unless it is leave-one-out.
        scores: those without distractors.
        source: embeddings of the distractors, as `read_blocks` takes them; rows need not have length 1.
        seed: seed of the resamples.

    Raises UsageError for embeddings that cannot be read or have another width.
    """
    distractors = 0

    def blocks() -> Iterator[Any]:
        nonlocal distractors
        for block in read_blocks(source, _ROWS):
            distractors += len(block)
            yield block

    beaten = beaten_by(sides[0], best_positives(*sides), blocks(), normalize=True)
    if not distractors:
        raise UsageError(f"{source} is empty")
    right, beaten_scored = scores.rank1[scores.scored], beaten[scores.scored]
    references = len(sides[2]) if len(sides) > 2 else len(sides[0])
    acc, ci95 = grown_accuracy(
        right, beaten_scored, scores.classes, references=references, distractors=distractors, seed=seed
    )
    return DistractorScores(count=distractors, beaten_by=pack_classes(beaten), acc=acc, ci95=ci95)
