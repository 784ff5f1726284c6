"""measure(case, images) -> result. Knows nothing of pytest."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.cost import count_gmacs
from embedcore.embed.device import place, use_device
from embedcore.embed.memory import PeakMemory
from embedcore.embed.sketch import sketch_of
from embedcore.measure.admission import check_size
from embedcore.measure.forward import ForwardPasses, run_forward
from embedcore.measure.outcome import failure, status_of
from embedcore.progress import Progress
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_sketch, pack_verdicts
from embedcore.retrieval.metrics import Scores, score
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.provenance import licence, pretraining_data

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.measure.case import Case
    from embedcore.zoo.hub import Hub


@dataclass(frozen=True)
class Images:
    """What a case is measured on: a dataset and its pixels in the case's geometry."""

    dataset: Dataset
    pixels: PixelStore
    hub: Hub | None = None
    """What is already known of the hub, so that a child need not find out again."""
    embeddings_folder: Path | None = None
    """Where embeddings are kept, and taken from if they are there; None not to keep any."""


def attempt(case: Case, images: Images, progress: Progress | None = None) -> Result:
    """``measure``, with every failure turned into a result with a status and a reason."""
    begin = time.perf_counter()
    memory = PeakMemory()
    try:
        with memory:
            return measure(case, images, progress, memory)
    except Exception as error:  # whatever a model, its weights or its kernels raise ends this case, not the run
        peak = memory.mb if status_of(error) == "oom" else None
        return failure(case, error, peak_memory_mb=peak, measured_s=time.perf_counter() - begin)


def measure(case: Case, images: Images, progress: Progress | None, memory: PeakMemory) -> Result:
    """Load the backbone, embed all images, time the forward pass, find neighbours and score them.

    Raises what goes wrong; ``attempt`` is the call that does not. ``progress(done, total)`` is called after each batch.
    """
    begin = time.perf_counter()
    device = use_device(case.device)
    backbone = load_backbone(case.model, weights=case.weights, point=case.point, seed=case.seed, hub=images.hub)
    check_size(case.max_params, backbone.params_m)
    place(backbone.module, device)
    # First, since the heap that larger batches leave behind may have no room for one image more.
    gmacs = count_gmacs(backbone)
    memory.restart(device)
    forward = run_forward(
        case,
        backbone,
        images.dataset,
        images.pixels,
        device,
        embeddings_folder=images.embeddings_folder,
        progress=progress,
    )
    peak = memory.mb
    scores = _score(forward.embeddings, images.dataset, device, case.seed)
    return Result.make(
        case.model,
        family=case.family,
        status="ok",
        detail=forward.note,
        pretraining=None if backbone.weights.source == "random" else pretraining_data(case.model),
        licence=licence(case.model),
        params_m=backbone.params_m,
        gmacs=gmacs,
        input_size=backbone.data_config.input_size,
        dim=forward.embeddings.shape[1],
        point=case.point,
        token_mean=backbone.token_mean,
        precision=forward.way.precision,
        batch_size=forward.batch_size,
        batch_decayed=forward.batch_decayed,
        device=str(device),
        channels_last=forward.way.channels_last,
        warmup_rounds=forward.warmup_rounds,
        weights={"source": backbone.weights.source, "id": backbone.weights.id},
        scores=scores.values,
        ci95=scores.ci95,
        images_per_s=_images_per_s(forward),
        peak_memory_mb=peak,
        verdicts=pack_verdicts(scores.hits5, scores.rank1),
        sketch=pack_sketch(sketch_of(forward.embeddings)),
        durations=forward.durations,
        measured_s=time.perf_counter() - begin,
    )


def _images_per_s(forward: ForwardPasses) -> dict[str, float]:
    rates = {"forward": forward.batch_size / statistics.median(forward.durations)}
    if forward.seconds is not None:
        rates["end_to_end"] = len(forward.embeddings) / forward.seconds
    return rates


def _score(embeddings: NDArray[np.float32], dataset: Dataset, device: torch.device, seed: int) -> Scores:
    queries, labels = embeddings[dataset.is_query], dataset.query_labels
    # Neighbours are found in fp32 or better also where the forward pass is not: see retrieval/search.py.
    where = str(device) if device.type == "cuda" else "cpu"
    if dataset.leave_one_out:
        return score(queries, labels, device=where, seed=seed)
    return score(queries, labels, embeddings[dataset.is_reference], dataset.reference_labels, device=where, seed=seed)
