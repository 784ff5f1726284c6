"""measure(case, images) -> result. Knows nothing of pytest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.cost import count_gmacs
from embedcore.embed.device import choose_device, pin_tf32, place
from embedcore.embed.embedder import Embedded, auto_batch_size, embed_pixels, first_batch
from embedcore.embed.memory import peak_memory_mb
from embedcore.embed.precision import CANARY_IMAGES, choose_precision
from embedcore.embed.sketch import sketch_of
from embedcore.embed.timing import time_forward
from embedcore.measure.admission import check_size
from embedcore.measure.outcome import NotFiniteError, detail_of, reason_of, status_of
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_sketch, pack_verdicts
from embedcore.retrieval.metrics import Scores, score
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.provenance import licence, pretraining_data

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.measure.case import Case
    from embedcore.zoo.hub import Hub

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Images:
    """What a case is measured on: a dataset and its pixels in the case's geometry."""

    dataset: Dataset
    pixels: PixelStore
    hub: Hub | None = None
    """What is already known of the hub, so that a child need not find out again."""


def attempt(case: Case, images: Images, progress: Progress | None = None) -> Result:
    """``measure``, with every failure turned into a result with a status and a reason."""
    begin = time.perf_counter()
    try:
        return measure(case, images, progress)
    except Exception as error:  # whatever a model, its weights or its kernels raise ends this case, not the run
        return Result.unmeasured(
            case.model,
            family=case.family,
            status=status_of(error),
            reason=reason_of(error),
            detail=detail_of(error),
            measured_s=time.perf_counter() - begin,
        )


def measure(case: Case, images: Images, progress: Progress | None = None) -> Result:
    """Load the backbone, embed all images, time the forward pass, find neighbours and score them.

    Raises what goes wrong; ``attempt`` is the call that does not. ``progress(done, total)`` is called after each batch.
    """
    begin = time.perf_counter()
    pin_tf32()
    device = choose_device(case.device)
    backbone = load_backbone(case.model, weights=case.weights, point=case.point, seed=case.seed, hub=images.hub)
    check_size(case.max_params_m, backbone.params_m)
    place(backbone.module, device)
    embedded, durations, precision = _forward(case, backbone, images.pixels, device, progress)
    peak = peak_memory_mb(device)
    if not embedded.finite:
        raise NotFiniteError(f"embeddings in {precision} hold NaN, infinity or zero vectors")
    scores = _score(embedded.embeddings, images.dataset, device, case.seed)
    architecture, _, tag = case.model.partition(".")
    return Result(
        model=case.model,
        architecture=architecture,
        tag=tag,
        family=case.family,
        status="ok",
        pretraining=pretraining_data(case.model),
        licence=licence(case.model),
        params_m=backbone.params_m,
        gmacs=count_gmacs(backbone),
        input_size=backbone.data_config.input_size,
        dim=embedded.embeddings.shape[1],
        point=case.point,
        token_mean=backbone.token_mean,
        precision=precision,
        batch_size=embedded.batch_size,
        batch_decayed=embedded.batch_decayed,
        device=str(device),
        weights={"source": backbone.weights.source, "id": backbone.weights.id},
        scores=scores.values,
        ci95=scores.ci95,
        images_per_s={
            "forward": embedded.batch_size / statistics.median(durations),
            "end_to_end": len(embedded.embeddings) / embedded.seconds,
        },
        peak_memory_mb=peak,
        verdicts=pack_verdicts(scores.hits5, scores.rank1),
        sketch=pack_sketch(sketch_of(embedded.embeddings)),
        durations=tuple(durations),
        measured_s=time.perf_counter() - begin,
    )


def _forward(
    case: Case, backbone: Backbone, pixels: PixelStore, device: torch.device, progress: Progress | None
) -> tuple[Embedded, list[float], str]:
    """Embeddings of all images, seconds of each timing round of a full batch, and the precision of both."""
    batch_size = auto_batch_size(case.batch_size, device, len(pixels))
    with torch.inference_mode():
        few = first_batch(backbone, pixels, min(batch_size, CANARY_IMAGES), device)
        precision = choose_precision(case.precision, backbone.embed, few)
    embedded = embed_pixels(
        backbone, pixels, device=device, precision=precision, batch_size=batch_size, progress=progress
    )
    batch = first_batch(backbone, pixels, embedded.batch_size, device)
    durations = time_forward(
        backbone.embed, batch, precision=precision, rounds=case.rounds, warmup_rounds=case.warmup_rounds
    )
    return embedded, durations, precision


def _score(embeddings: NDArray[np.float32], dataset: Dataset, device: torch.device, seed: int) -> Scores:
    queries, labels = embeddings[dataset.is_query], dataset.query_labels
    # Neighbours are found in fp32 or better also where the forward pass is not: see retrieval/search.py.
    where = str(device) if device.type == "cuda" else "cpu"
    if dataset.leave_one_out:
        return score(queries, labels, device=where, seed=seed)
    return score(queries, labels, embeddings[dataset.is_reference], dataset.reference_labels, device=where, seed=seed)
