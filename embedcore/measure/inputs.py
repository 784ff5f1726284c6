"""Inputs of a case besides its settings: labels, pixels, and the locations of weights and caches."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcore.images.ledger import Ledger
from embedcore.images.pixel_store import PixelStore
from embedcore.measure.case import Case
from embedcore.measure.truth import GroundTruth
from embedcore.progress import Stages
from embedcore.results.neighbours import NeighbourStore
from embedcore.zoo.hub import Hub
from embedcore.zoo.weights import Located, locate_weights


@dataclass(frozen=True, eq=False)
class EmbeddedParts:
    """Disjoint parts of the images, which a race has embedded."""

    folder: Path
    """Where their embeddings are kept, unless the model left the race before."""
    images: Mapping[str, NDArray[np.int64]]
    """Indices of the images of each part, by the part's fingerprint as a dataset."""


@dataclass(frozen=True)
class CaseInputs:
    """Images, labels and locations for a case; picklable, so that it can be sent to another process."""

    truth: GroundTruth
    """If these are distractors, only its fingerprint and decoder matter."""
    pixels: PixelStore | None
    """All images in the case's geometry; None for precomputed embeddings."""
    located: Located | None = None
    """Where the weights are; None to look for them."""
    hub: Hub | None = None
    """State of the hub, so that a child need not probe it again."""
    embeddings_folder: Path | None = None
    """Where embeddings are kept and reused; None not to keep any."""
    parts: EmbeddedParts | None = None
    """Images that need not be embedded again."""
    engines_folder: Path | None = None
    """Where compiled and exported models are kept; None not to keep any."""
    ledger: Ledger | None = None
    """Where the outcomes of trial passes are kept and reused; None not to keep any."""
    neighbours: NeighbourStore | None = None
    """Where the neighbours of each query are kept; None not to keep them."""
    distractors: CaseInputs | Path | None = None
    """Images of no class, or where their embeddings are; None without distractors."""
    pinned_images: int | None = None
    """For a further timing process: the images of a round on a pinned thread, as in the first one."""
    receive_pixels: Callable[[], tuple[PixelStore | None, CaseInputs | Path | None]] | None = None
    """In a process that was started ahead: waits for the pixels and the distractors, and returns them."""


def fetched_weights(case: Case, inputs: CaseInputs, stages: Stages) -> tuple[Located | None, float | None]:
    """Return where the case's weights are, downloaded if needed, and the seconds that the download took.

    Both are None for an own model; the seconds also without a download.
    """
    if case.own_model is not None:
        return None, None
    hub = inputs.hub or Hub()
    located = inputs.located or locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
    if located.path is not None or located.source == "random":
        return located, None
    begin = time.perf_counter()
    stages("downloading", 0, 0)
    path = hub.download(located.model, located.remote, progress=functools.partial(stages, "downloading"))
    return replace(located, path=path), time.perf_counter() - begin
