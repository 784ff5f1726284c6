"""The forward passes of a case: the precision, the embeddings of all images, and the timing rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.embedder import auto_batch_size, embed_pixels, first_batch
from embedcore.embed.halving import halving
from embedcore.embed.kept import KeptEmbeddings
from embedcore.embed.precision import CANARY_IMAGES, choose_precision
from embedcore.embed.timing import time_forward
from embedcore.images.geometry import geometry_of
from embedcore.measure.outcome import NotFiniteError
from embedcore.version import VERSION

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.measure.case import Case
    from embedcore.zoo.backbone import Backbone

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Forward:
    """What came of the forward passes of a case."""

    embeddings: NDArray[np.float32]
    """[n, dim], all finite."""
    seconds: float | None
    """From the first read to the last embedding; None where the embeddings were kept from another run."""
    durations: tuple[float, ...]
    """Seconds of each timing round, a forward pass of ``batch_size`` images."""
    batch_size: int
    batch_decayed: bool
    """Whether memory forced a smaller batch than asked for."""
    precision: str
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
) -> Forward:
    """Choose the precision, embed all images and time a batch; whenever memory runs out, go on with half the batch.

    With an ``embeddings_folder`` the embeddings are taken from there if they are there, else put there. Timing rounds
    are run in any case: a duration of another day is no measurement of this one.
    Raises NotFiniteError, and the memory error of a batch of one image.
    """
    wanted = auto_batch_size(case.batch_size, device, len(pixels))
    canary = min(wanted, CANARY_IMAGES)

    def find_precision(images: int) -> str:
        with torch.inference_mode():
            return choose_precision(case.precision, backbone.embed, first_batch(backbone, pixels, images, device))

    precision, fitted = halving(canary, device, find_precision)
    batch_size = wanted if fitted == canary else fitted

    kept = KeptEmbeddings(embeddings_folder) if embeddings_folder is not None else None
    facts = facts_of(case, backbone, dataset, device, precision) if kept is not None else {}
    embeddings = kept.load(facts, len(pixels)) if kept is not None else None
    seconds, note = None, ""
    if embeddings is None:
        embedded = embed_pixels(
            backbone, pixels, device=device, precision=precision, batch_size=batch_size, progress=progress
        )
        if not embedded.finite:
            raise NotFiniteError(f"embeddings in {precision} hold NaN, infinity or zero vectors")
        embeddings, seconds, batch_size = embedded.embeddings, embedded.seconds, embedded.batch_size
        if kept is not None:
            note = _keep(kept, facts, embeddings)
    else:
        note = f"embeddings were taken from {embeddings_folder}: reading and embedding all images was not timed"
        if progress is not None:
            progress(len(pixels), len(pixels))

    def time_rounds(images: int) -> list[float]:
        with torch.inference_mode():
            batch = first_batch(backbone, pixels, images, device)
        return time_forward(
            backbone.embed, batch, precision=precision, rounds=case.rounds, warmup_rounds=case.warmup_rounds
        )

    durations, batch_size = halving(batch_size, device, time_rounds)
    return Forward(embeddings, seconds, tuple(durations), batch_size, batch_size < wanted, precision, note)


def facts_of(case: Case, backbone: Backbone, dataset: Dataset, device: torch.device, precision: str) -> dict[str, Any]:
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
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
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
