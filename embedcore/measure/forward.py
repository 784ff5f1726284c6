"""The forward passes of a case: how to compute, the embeddings of all images, and the timing rounds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.device import device_name
from embedcore.embed.embedder import Way, auto_batch_size, choose_way, embed_pixels, first_batch
from embedcore.embed.halving import halving
from embedcore.embed.kept import KeptEmbeddings
from embedcore.embed.precision import autocast
from embedcore.embed.timing import time_forward
from embedcore.images.geometry import geometry_of
from embedcore.measure.outcome import NotFiniteError
from embedcore.progress import Progress
from embedcore.version import VERSION

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.measure.case import Case
    from embedcore.zoo.backbone import Backbone


@dataclass(frozen=True)
class ForwardPasses:
    """What came of the forward passes of a case."""

    embeddings: NDArray[np.float32]
    """[n, dim], all finite."""
    seconds: float | None
    """From the first read to the last embedding; None where the embeddings were kept from another run."""
    durations: tuple[float, ...]
    """Seconds of each timing round, a forward pass of ``batch_size`` images."""
    warmup_rounds: int
    batch_size: int
    batch_decayed: bool
    """Whether memory forced a smaller batch than asked for."""
    way: Way
    note: str = ""
    """What is to be said of the kept embeddings."""


def run_forward(
    case: Case,
    backbone: Backbone,
    dataset: Dataset,
    pixels: PixelStore,
    device: torch.device,
    *,
    embeddings_folder: Path | None = None,
    progress: Progress | None = None,
) -> ForwardPasses:
    """Choose how to compute, embed all images and time a batch; whenever memory runs out, go on with half the batch.

    With an ``embeddings_folder`` the embeddings are taken from there if they are there, else put there. Timing rounds
    are run in any case: a duration of another day is no measurement of this one.
    Raises NotFiniteError, and the memory error of a batch of one image.
    """
    wanted = auto_batch_size(case.batch_size, device, len(pixels))
    way, batch_size = choose_way(backbone, pixels, device, case.precision, wanted)

    kept = KeptEmbeddings(embeddings_folder) if embeddings_folder is not None else None
    facts = facts_of(case, backbone, dataset, way) if kept is not None else {}
    embeddings = kept.load(facts, len(pixels)) if kept is not None else None
    seconds, note = None, ""
    if embeddings is None:
        embedded = embed_pixels(backbone, pixels, way, batch_size=batch_size, progress=progress)
        if not embedded.finite:
            raise NotFiniteError(f"embeddings in {way.precision} hold NaN, infinity or zero vectors")
        embeddings, seconds, batch_size = embedded.embeddings, embedded.seconds, embedded.batch_size
        if kept is not None:
            note = _keep(kept, facts, embeddings)
    else:
        note = f"embeddings were taken from {embeddings_folder}: reading and embedding all images was not timed"
        if progress is not None:
            progress(len(pixels), len(pixels))

    def time_rounds(images: int) -> tuple[list[float], int]:
        batch = first_batch(backbone, pixels, images, way)
        with autocast(way.precision, device, backbone.module):
            return time_forward(backbone.embed, batch, case.rounds)

    (durations, warmup_rounds), batch_size = halving(batch_size, device, time_rounds)
    decayed = batch_size < wanted
    return ForwardPasses(embeddings, seconds, tuple(durations), warmup_rounds, batch_size, decayed, way, note)


def facts_of(case: Case, backbone: Backbone, dataset: Dataset, way: Way) -> dict[str, Any]:
    """Everything that decides a case's embeddings but for the rounding that comes with the batch size."""
    config = backbone.data_config
    geometry = geometry_of(config, case.protocol)
    return {
        "model": backbone.name,
        "weights": backbone.weights.id,
        "dataset": dataset.fingerprint,
        "geometry": geometry.key,
        # Another decoder or another version of what resizes may make other pixels of the same geometry.
        "pixels": hashlib.sha256(f"{geometry.behaviour()}\n{dataset.images.decoder}".encode()).hexdigest(),
        "mean": list(config.mean),
        "std": list(config.std),
        "point": case.point,
        "precision": way.precision,
        "device": device_name(way.device) if way.device.type == "cuda" else way.device.type,
        "torch": torch.__version__,
        "timm": version("timm"),
        "embedcore": VERSION,
    }


def _keep(kept: KeptEmbeddings, facts: dict[str, Any], embeddings: NDArray[np.float32]) -> str:
    try:
        kept.save(facts, embeddings)
    except OSError as error:  # a full disk costs the copy, not the measurement
        return f"embeddings could not be kept in {kept.folder}: {error}"
    return ""
